"""Hostile files are refused with a reason or decoded, at once, in little memory."""

import os
import subprocess
import sys
import time

import pytest

from darkroom.images import REQUESTED_IMAGES, ImageError, Preprocessing, decode, prepare
from hostile.bombs import bombs
from hostile.images import ImageCase, image_cases, picture

HOW = Preprocessing(resize_size=256, image_size=224, reduced_decoding=True)
SECONDS = 2.0
GROWTH_MB = 300
CASES = image_cases()


def outcome(case: ImageCase) -> str:
    """The reason, or nothing; any other exception is the test's."""
    try:
        assert prepare(case.content, HOW, limits=REQUESTED_IMAGES).shape == (3, 224, 224)
    except ImageError as error:
        return str(error)
    return ""


def test_there_are_many_of_every_kind() -> None:
    assert len(CASES) >= 160
    assert len({case.kind for case in CASES}) == 11


@pytest.mark.slow
def test_the_same_ones_come_from_the_same_seed() -> None:
    assert [case.content for case in image_cases()] == [case.content for case in CASES]


@pytest.mark.parametrize("kind", sorted({case.kind for case in CASES}))
def test_each_is_refused_with_a_reason_or_decoded_and_soon(kind: str) -> None:
    for case in (case for case in CASES if case.kind == kind):
        started = time.process_time()
        reason = outcome(case)
        assert time.process_time() - started < SECONDS, case.name
        assert reason or not case.is_refused, case.name


@pytest.mark.slow
def test_a_bomb_takes_little_memory() -> None:
    program = (
        "import resource, test_hostile_images as t\n"
        "cases = list(t.bombs())\n"
        "t.outcome(cases[0]); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "[t.outcome(case) for case in cases]\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < GROWTH_MB


def test_a_telephones_jpeg_with_more_pictures_behind_it_is_its_first() -> None:
    from hostile.images import encoded

    image = picture(1600, 1200)
    several = encoded(image, "MPO", save_all=True, append_images=[image.rotate(180)])
    assert decode(several).tobytes() == decode(encoded(image, "JPEG")).tobytes()


def test_bombs_are_small() -> None:
    assert all(len(case.content) <= 6 * 2**20 for case in bombs())
