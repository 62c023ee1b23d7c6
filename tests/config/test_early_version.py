"""The data source is looked at before anything is started, and no more often than needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import main_job
from darkroom.base.errors import UserError
from darkroom.config import Config, DataConfig


def config(source: str) -> Config:
    return Config(data=DataConfig(source=source))


@pytest.mark.parametrize("stack", ["local", "rehearsal", "sagemaker"])
def test_a_folder_that_is_missing_is_found_out_at_once(stack: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        main_job._early_version(config(str(tmp_path / "none")), stack=stack)


@pytest.mark.parametrize("stack", ["rehearsal", "sagemaker"])
def test_a_bucket_is_not_asked_before_the_stack_says_in_which_account(stack: str) -> None:
    assert main_job._early_version(config("s3://photos/dogs"), stack=stack) is None


def test_a_local_run_lists_its_source_once(
    image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = main_job.source_version

    def counting(source: str, **more: Any) -> str:
        asked.append(source)
        return original(source, **more)

    monkeypatch.setattr(main_job, "source_version", counting)
    settings = config(str(image_folder()))
    version = main_job._early_version(settings, stack="local")
    assert version is not None
    assert main_job._version_of(settings, early=version, source=settings.data.source) == version
    assert len(asked) == 1
