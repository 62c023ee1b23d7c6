"""Charts: what is written at axes, what is drawn of too much, and of nothing."""

import re

import numpy as np
import pytest

from darkroom.reports.chart_axes import Scale, duration, number, scale, tick
from darkroom.reports.training_curves import smoothed
from darkroom.reports.training_health import health_maps, mean
from training_evidence import healthy
from training_tensors import RESNET_161, resnet


def test_shallow_networks_are_labelled_row_by_row_and_deep_ones_by_part() -> None:
    shallow = health_maps(healthy().tensors)[0].chart
    assert "layer4.1.conv2.weight</text>" in shallow
    deep = health_maps(healthy(names=RESNET_161).tensors)[0]
    assert deep.grouped == ""
    names = re.findall(r'class="name">([^<]*)</text>', deep.chart)
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)"[^>]*class="name"', deep.chart))
    assert {"layer1.0", "layer3.5", "layer4.2"} <= set(names)
    assert min(np.diff(heights)) >= 10


def test_names_of_rows_that_begin_alike_are_grouped_no_further_than_needed() -> None:
    maps = health_maps(healthy(names=resnet((3, 30, 48, 8), convolutions=3)).tensors)
    assert "rows: each row is the mean of a part" in maps[0].grouped


def test_means_leave_out_what_is_unknown() -> None:
    values = np.array([[1.0, np.nan], [100.0, np.nan]])
    assert mean(values, axis=0, log=True)[0] == pytest.approx(10)
    assert np.isnan(mean(values, axis=0, log=False)[1])


def test_smoothing_keeps_gaps_and_length() -> None:
    loss = np.array([1.0, np.nan, 3.0] * 100)
    result = smoothed(loss)
    assert len(result) == 300
    assert np.isnan(result[1::3]).all()
    assert result[150] == pytest.approx(2, abs=0.4)
    assert len(smoothed(np.array([]))) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1200.0, "1,200"),
        (0.01234, "0.0123"),
        (3.1e-9, "3.1e−9"),
        (-2.5, "−2.5"),
        (123456.0, "1.23e5"),
        (1234.56, "1,234.6"),
        (float("nan"), "not a number"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_times_are_told_as_people_do() -> None:
    assert [duration(s) for s in (0.812, 48, 200, 7500)] == [
        "0.81 s",
        "48 s",
        "3 min 20 s",
        "2 h 5 min",
    ]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [[], [0.0], [5.0], [-1.0, 1.0], [1e-300, 1e300], [np.nan], [np.inf, 1.0], [1e-9, 2e-9]],
)
def test_scales_hold_whatever_comes(values: list[float], log: bool) -> None:
    axis = scale([np.array(values, dtype=np.float64)], start=100, end=0, log=log)
    known = [value for value in values if np.isfinite(value)]
    assert axis.low < axis.high
    assert all(-1e-6 <= axis(value) <= 100 + 1e-6 for value in known)
    assert all(np.isfinite(axis(tick)) for tick in axis.ticks(5))
    assert len(axis.ticks(5)) <= 12


def test_ticks_are_round() -> None:
    assert Scale(0, 1, 0, 100).ticks(5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert Scale(0, 5, 0, 100, whole=True).ticks(10) == [0, 1, 2, 3, 4, 5]
    assert Scale(1e-8, 1, 0, 100, log=True).ticks(5) == [1e-8, 1e-6, 1e-4, 1e-2, 1]


def test_neighbouring_ticks_do_not_look_alike() -> None:
    assert [tick(value) for value in (158.0, 158.5, 159.0)] == ["158", "158.5", "159"]
