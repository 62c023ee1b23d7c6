"""What a server can be told, by flags and by the environment."""

import pytest

from darkroom.base.errors import UserError
from darkroom.serving.settings import ServingSettings, read_settings


def test_nothing_said_is_the_defaults() -> None:
    assert read_settings({}, environment={"PATH": "/bin"}) == ServingSettings()


def test_the_environment_sets_what_its_names_say() -> None:
    environment = {
        "DARKROOM_SERVE_WORKERS": "3",
        "DARKROOM_SERVE_ALLOW_URLS": "on",
        "DARKROOM_SERVE_URL_HOSTS": "a.example, *.b.example,",
        "DARKROOM_SERVE_CAPTURE_PERCENT": "12.5",
    }
    settings = read_settings({}, environment=environment)
    assert (settings.workers, settings.allow_urls) == (3, True)
    assert settings.url_hosts == ("a.example", "*.b.example")
    assert settings.capture_percent == 12.5


def test_flags_win_over_the_environment_and_none_is_not_given() -> None:
    environment = {"DARKROOM_SERVE_WORKERS": "3", "DARKROOM_SERVE_LOG": "json"}
    settings = read_settings({"workers": "5", "log": None}, environment=environment)
    assert (settings.workers, settings.log) == (5, "json")


def test_all_mistakes_are_told_at_once_and_by_the_name_they_were_given() -> None:
    environment = {"DARKROOM_SERVE_WORKER": "3", "DARKROOM_SERVE_LOG": "xml"}
    with pytest.raises(UserError) as caught:
        read_settings({"maximum_batch": "many"}, environment=environment)
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "--maximum-batch is 'many'" in problems
    assert "$DARKROOM_SERVE_WORKER is no setting" in problems
    assert "$DARKROOM_SERVE_LOG is 'xml'" in problems


@pytest.mark.parametrize(
    ("name", "value"), [("workers", "-1"), ("capture_percent", "101"), ("maximum_body_bytes", "1")]
)
def test_values_out_of_bounds_are_refused(name: str, value: str) -> None:
    with pytest.raises(UserError, match=value):
        read_settings({name: value}, environment={})
