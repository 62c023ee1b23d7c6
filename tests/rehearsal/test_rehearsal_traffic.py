"""How an update moves traffic, and what is cut of a transform's objects: no emulator needed."""

from fractions import Fraction

import pytest

from rehearsal.hosting.endpoint_operations import stages
from rehearsal.transform.operations import RecordTooLargeError, assembled, payloads, relative_key

PERCENT = "CAPACITY_PERCENT"


def shares(deployment: dict[str, object], *, instances: int = 4) -> list[Fraction]:
    return [stage.share for stage in stages(deployment, instances=instances)]


def blue_green(kind: str, **more: object) -> dict[str, object]:
    routing = {"Type": kind, "WaitIntervalInSeconds": 600, **more}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 120}
    return {"BlueGreenUpdatePolicy": policy}


def test_without_guardrails_everything_moves_at_once() -> None:
    assert shares({}) == [1]


def test_a_canary_comes_first() -> None:
    deployment = blue_green("CANARY", CanarySize={"Type": PERCENT, "Value": 10})
    assert shares(deployment) == [Fraction(1, 10), 1]


def test_linear_steps_end_with_everything() -> None:
    deployment = blue_green("LINEAR", LinearStepSize={"Type": PERCENT, "Value": 30})
    assert shares(deployment) == [Fraction(3, 10), Fraction(6, 10), Fraction(9, 10), 1]


def test_sizes_may_be_counts_of_instances() -> None:
    deployment = blue_green("LINEAR", LinearStepSize={"Type": "INSTANCE_COUNT", "Value": 1})
    assert shares(deployment, instances=3) == [Fraction(1, 3), Fraction(2, 3), 1]


def test_rolling_updates_go_in_batches() -> None:
    size = {"Type": PERCENT, "Value": 50}
    policy = {"MaximumBatchSize": size, "WaitIntervalInSeconds": 60}
    assert shares({"RollingUpdatePolicy": policy}) == [Fraction(1, 2), 1]


@pytest.mark.parametrize(
    ("key", "prefix", "wanted"),
    [
        ("in/a.png", "in/", "a.png"),
        ("in/deep/a.png", "in/", "deep/a.png"),
        ("in/a.png", "in", "a.png"),
        ("in/a.png", "in/a.png", "a.png"),
        ("in/data-1.png", "in/data", "data-1.png"),
        ("a.png", "", "a.png"),
    ],
)
def test_results_keep_the_path_below_the_input(key: str, prefix: str, wanted: str) -> None:
    assert relative_key(key, prefix=prefix) == wanted


def cut(body: bytes, *, split: str, strategy: str, megabytes: int = 1) -> list[bytes]:
    return payloads(body, split=split, strategy=strategy, maximum_megabytes=megabytes)


def test_objects_are_sent_whole_or_by_lines() -> None:
    assert cut(b"1\n2\n", split="None", strategy="MultiRecord") == [b"1\n2\n"]
    assert cut(b"1\n2\n", split="Line", strategy="SingleRecord") == [b"1\n", b"2\n"]
    line = b"x" * 400_000 + b"\n"
    sizes = [len(part) for part in cut(line * 5, split="Line", strategy="MultiRecord")]
    assert sizes == [2 * len(line), 2 * len(line), len(line)]


def test_a_record_that_is_too_large_is_an_error() -> None:
    with pytest.raises(RecordTooLargeError, match="MaxPayloadInMB=1"):
        cut(bytes(2**20 + 1), split="None", strategy="MultiRecord")
    assert len(cut(bytes(2**23), split="None", strategy="MultiRecord", megabytes=0)) == 1


def test_answers_are_joined_with_or_without_line_ends() -> None:
    assert assembled([b"1", b"2\n"], assemble_with="Line") == b"1\n2\n"
    assert assembled([b"1", b"2"], assemble_with="None") == b"12"
