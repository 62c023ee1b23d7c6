"""Several models behind one endpoint of SageMaker, in a stand-in that really serves them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from darkroom.backends.endpoint import Endpoint, EndpointCheck, EndpointError, Expectation
from darkroom.backends.sagemaker.cleanup import EndpointRow, Selection, find, list_endpoints, remove
from darkroom.backends.sagemaker.hosting.client import client_of
from darkroom.backends.sagemaker.hosting.several_models import (
    deploy_several,
    remove_model,
    verify_several,
)
from darkroom.base.errors import DarkroomError, UserError
from darkroom.models.bundle import Bundle, read_bundle
from rehearsed_hosting import BUCKET, Rehearsed, briefly, enter, rehearsed
from small_bundles import rewrite_digests, write_other_weights, write_small_bundle

COLOURS, MOODS, SEASONS = (
    ("blue", "green", "red"),
    ("calm", "fresh", "angry"),
    ("winter", "spring", "summer", "autumn"),
)

pytestmark = pytest.mark.slow  # they start processes


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    with rehearsed(tmp_path_factory.mktemp("several")) as opened:
        yield opened


@pytest.fixture
def aws(opened: Rehearsed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsed]:
    yield enter(opened, monkeypatch)
    for thing in find(Selection(everything=True), clients=opened.clients):
        remove(thing, clients=opened.clients, pause=briefly)
    assert opened.names() == set()


def bundle_of(aws: Rehearsed, name: str, *, classes: tuple[str, ...], size: int = 16) -> Bundle:
    folder = aws.folder / "several" / name
    if not folder.exists():
        write_small_bundle(folder, image_size=size, outputs=len(classes), classes=classes)
        write_other_weights(folder, name=name)
        rewrite_digests(folder)
    return read_bundle(folder)


def deployed(aws: Rehearsed, name: str, **bundles: Bundle) -> Endpoint:
    return deploy_several(bundles, name=name, site=aws.site(), clients=aws.clients, pause=briefly)


def expectation(aws: Rehearsed, bundle: Bundle, *, wrong: bool = False) -> Expectation:
    expected = aws.expected(bundle)
    return Expectation(
        images=aws.images,
        probabilities=np.roll(expected, 1, axis=1) if wrong else expected,
        classes=bundle.metadata.classes,
    )


def verified(aws: Rehearsed, endpoint: Endpoint, **wanted: Expectation) -> dict[str, EndpointCheck]:
    return verify_several(
        endpoint, expected=wanted, tolerance=1e-3, clients=aws.clients, pause=briefly
    )


def row(aws: Rehearsed, name: str) -> EndpointRow:
    found = list_endpoints(clients=aws.clients, region="us-east-1")
    return next(row for row in found if row.name == name)


def classes_of(aws: Rehearsed, endpoint: str, *, model: str) -> set[str]:
    answering = client_of(
        endpoint, clients=aws.clients, target_model=f"{model}.tar.gz", pause=briefly
    )
    content = aws.images[0].read_bytes()
    answer = answering.invoke(content, content_type="image/png", top_k=10)
    return {item["class"] for item in answer["top_k"]}


def test_models_of_other_classes_are_served_verified_joined_and_removed(aws: Rehearsed) -> None:
    colours = bundle_of(aws, "colours", classes=COLOURS)
    seasons = bundle_of(aws, "seasons", classes=SEASONS, size=32)
    endpoint = deployed(aws, "both", colours=colours, seasons=seasons)
    checks = verified(
        aws, endpoint, colours=expectation(aws, colours), seasons=expectation(aws, seasons)
    )
    assert {name: check.agreement for name, check in checks.items()} == {
        "colours": 1,
        "seasons": 1,
    }
    assert (row(aws, "both").kind, row(aws, "both").models) == (
        "multi-model",
        ("colours", "seasons"),
    )
    moods = bundle_of(aws, "moods", classes=MOODS)
    again = deployed(aws, "both", moods=moods)
    assert again.configuration == endpoint.configuration
    verified(aws, again, moods=expectation(aws, moods))
    for model, classes in (("moods", MOODS), ("colours", COLOURS), ("seasons", SEASONS)):
        assert classes_of(aws, "both", model=model) == set(classes)
    remove_model("colours", endpoint="both", clients=aws.clients)
    assert row(aws, "both").models == ("moods", "seasons")
    with pytest.raises(UserError, match=r"no model 'colours'; it has moods, seasons"):
        remove_model("colours", endpoint="both", clients=aws.clients)
    remove_model("moods", endpoint="both", clients=aws.clients)
    with pytest.raises(UserError, match="the only model"):
        remove_model("seasons", endpoint="both", clients=aws.clients)


def test_a_model_that_is_served_is_not_replaced(aws: Rehearsed) -> None:
    colours = bundle_of(aws, "colours", classes=COLOURS)
    moods = bundle_of(aws, "moods", classes=MOODS)
    endpoint = deployed(aws, "kept", first=colours)
    verified(aws, endpoint, first=expectation(aws, colours))
    with pytest.raises(UserError, match=r"another model 'first'.*another name"):
        deployed(aws, "kept", first=moods)
    assert classes_of(aws, "kept", model="first") == set(COLOURS)
    for thing in find(Selection(name="kept"), clients=aws.clients):
        remove(thing, clients=aws.clients, pause=briefly)
    deployed(aws, "kept", second=moods)  # the endpoint is gone: so is what it served
    assert row(aws, "kept").models == ("second",)


def test_a_model_that_answers_wrongly_goes_and_the_others_stay(aws: Rehearsed) -> None:
    colours = bundle_of(aws, "colours", classes=COLOURS)
    moods = bundle_of(aws, "moods", classes=MOODS)
    endpoint = deployed(aws, "mixed", colours=colours, moods=moods)
    wanted = {
        "colours": expectation(aws, colours),
        "moods": expectation(aws, moods, wrong=True),
    }
    with pytest.raises(EndpointError, match=r"model 'moods': only 0.0%.*the others serve"):
        verified(aws, endpoint, **wanted)
    assert row(aws, "mixed").models == ("colours",)
    assert classes_of(aws, "mixed", model="colours") == set(COLOURS)


def test_a_new_endpoint_of_which_no_model_agrees_is_removed(aws: Rehearsed) -> None:
    colours = bundle_of(aws, "colours", classes=COLOURS)
    endpoint = deployed(aws, "wrong", colours=colours)
    with pytest.raises(EndpointError, match="it was removed"):
        verified(aws, endpoint, colours=expectation(aws, colours, wrong=True))
    assert aws.names() == set()


def test_one_model_gives_way_to_several_and_comes_back_where_they_are_wrong(
    aws: Rehearsed,
) -> None:
    single = aws.kept("alone")
    colours = bundle_of(aws, "colours", classes=COLOURS)
    endpoint = deployed(aws, "alone", colours=colours)
    assert endpoint.previous == single.configuration
    assert "darkroom:version" not in aws.tags("alone")
    with pytest.raises(EndpointError, match="the model before serves again"):
        verified(aws, endpoint, colours=expectation(aws, colours, wrong=True))
    assert row(aws, "alone").kind == "realtime"
    aws.verify(single, bundle=aws.bundle("alone"))


def test_a_model_that_is_no_bundle_leaves_the_others_alone(aws: Rehearsed) -> None:
    colours = bundle_of(aws, "colours", classes=COLOURS)
    endpoint = deployed(aws, "broken", colours=colours)
    verified(aws, endpoint, colours=expectation(aws, colours))
    place = "prefix/models/several/broken/odd.tar.gz"
    aws.clients.s3.put_object(Bucket=BUCKET, Key=place, Body=b"no archive")
    with pytest.raises(DarkroomError):
        classes_of(aws, "broken", model="odd")
    with pytest.raises(DarkroomError):
        classes_of(aws, "broken", model="missing")
    assert classes_of(aws, "broken", model="colours") == set(COLOURS)


def test_kinds_that_hold_one_model_are_refused_before_anything_is_sent(aws: Rehearsed) -> None:
    site = aws.site(hosting={"kind": "serverless"})
    with pytest.raises(UserError, match="hold one model"):
        deploy_several({}, name="x", site=site, clients=aws.clients)
    site = replace(site, config=aws.site(hosting={"instance_type": "ml.g5.xlarge"}).config)
    with pytest.raises(UserError, match="Triton"):
        deploy_several({}, name="x", site=site, clients=aws.clients)
