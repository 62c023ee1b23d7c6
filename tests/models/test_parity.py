"""A bundle holds a picture and what torch said of it; whoever loads it computes that again."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.base.errors import DarkroomError
from darkroom.images import decode
from darkroom.models.bundle import (
    METADATA_FILE,
    BundleMetadata,
    Parity,
    parity_picture,
    read_metadata,
)
from darkroom.models.prediction import Predictor
from served import program
from small_bundles import write_small_bundle


def change(bundle: Path, **values: Any) -> None:
    path = bundle / METADATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """One that was packed with its proof."""
    bundle = write_small_bundle(tmp_path / "bundle")
    expected = Predictor.load(bundle).predict([parity_picture()])[0]
    parity = Parity(
        image=base64.b64encode(parity_picture()).decode(),
        probabilities=tuple(map(float, expected)),
    )
    change(bundle, parity=parity.model_dump())
    return bundle


def test_the_picture_is_the_same_each_time_and_shows_something() -> None:
    assert parity_picture() == parity_picture()
    assert np.asarray(decode(parity_picture())).std() > 40


def test_a_bundle_that_computes_what_it_should_proves_itself(bundle: Path) -> None:
    Predictor.load(bundle).self_test()


def test_a_bundle_without_proof_only_has_to_run(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    assert read_metadata(bundle).parity is None
    Predictor.load(bundle).self_test()


@pytest.mark.parametrize(
    "changed", [{"mean": [0.1, 0.1, 0.1]}, {"resize_size": 40}, {"std": [1.0, 1.0, 1.0]}]
)
def test_other_preprocessing_than_in_training_is_noticed(
    bundle: Path, changed: dict[str, Any]
) -> None:
    preprocessing = read_metadata(bundle).preprocessing.model_dump()
    change(bundle, preprocessing=preprocessing | changed)
    with pytest.raises(DarkroomError, match="other probabilities"):
        Predictor.load(bundle).self_test()


def test_an_engine_that_computes_something_else_is_noticed(bundle: Path) -> None:
    class Inexact:
        name = "onnxruntime"

        def run(self, batch: Any) -> Any:
            return np.tile(np.float32([0, 0, 9]), (len(batch), 1))

    predictor = Predictor(Inexact(), metadata=read_metadata(bundle))
    with pytest.raises(DarkroomError, match="'onnxruntime' computes other probabilities"):
        predictor.self_test()


def test_a_server_whose_model_does_not_prove_itself_does_not_serve(bundle: Path) -> None:
    change(bundle, preprocessing={"resize_size": 40, "image_size": 16})
    with program("serve", str(bundle), "--port", "0") as child:
        assert child.wait(30) == 1
        assert "other probabilities" in child.stderr.read()


def test_metadata_of_older_bundles_is_still_read(bundle: Path) -> None:
    older = json.loads((bundle / METADATA_FILE).read_text())
    del older["parity"]
    assert BundleMetadata.model_validate(older).parity is None
    shutil.rmtree(bundle)
