"""The grid picture of `predict`: which images it shows, and how."""

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from darkroom.data.found_image import FoundImage
from darkroom.models.prediction import Prediction
from darkroom.reports.figures import GREEN, GREY, RED, png
from darkroom.reports.pictures import EvenSample, PictureChoice, Tile, picture_grid, thumbnail


def encoded(size: tuple[int, int] = (30, 40)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "teal").save(stream, "PNG")
    return stream.getvalue()


IMAGE = encoded()


def note(
    choice: PictureChoice, name: str, *, predicted: str = "cat", label: str | None = None
) -> None:
    found = FoundImage(f"folder/{name}.png", content=IMAGE)
    row = Prediction(source=found.source, class_name=predicted, probability=0.5)
    choice.note(found, prediction=row, label=label)


def note_broken(choice: PictureChoice, name: str) -> None:
    found = FoundImage(f"folder/{name}.png", error="broken image: it is cut")
    row = Prediction(source=found.source, error=found.error)
    choice.note(found, prediction=row, label=None)


def notes(tiles: Sequence[Tile]) -> list[str]:
    return [tile.note.removesuffix(".png") for tile in tiles]


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 1000])
def test_a_sample_is_spread_evenly_over_whatever_comes(length: int) -> None:
    sample, made = EvenSample[int](8), []
    for number in range(length):
        sample.offer(lambda number=number: made.append(number) or number)
    taken = sample.take(min(8, length))
    assert sample.seen == length
    assert taken == sorted(set(taken))
    assert len(made) <= 16 + 8 * 10
    gaps = [after - before for before, after in pairwise(taken)]
    if length >= 8:
        assert taken[0] == 0
        assert taken[-1] >= length * 3 / 4
        assert max(gaps) <= 2 * min(gaps) + 1


def test_wrong_ones_come_first_and_fill_no_more_than_half() -> None:
    choice = PictureChoice(6)
    for number in range(20):
        note(choice, f"right{number}", label="cat")
        note(choice, f"wrong{number}", label="dog")
    tiles = choice.tiles()
    assert [tile.colour for tile in tiles] == [RED] * 3 + [GREEN] * 3
    assert choice.title() == "40 images, actual → predicted: 20 wrong, 20 right (6 shown)"


def test_places_that_a_group_does_not_need_go_to_the_others() -> None:
    choice = PictureChoice(10)
    for number in range(20):
        note(choice, f"right{number}", label="cat")
    note(choice, "wrong", label="dog")
    note_broken(choice, "cut")
    assert [tile.colour for tile in choice.tiles()] == [RED] + [GREEN] * 8 + [GREY]


def test_unlabelled_and_unreadable_images_are_grey_and_say_what_is_known() -> None:
    choice = PictureChoice(10)
    note_broken(choice, "cut")
    note(choice, "one")
    one, cut = choice.tiles()
    assert (one.title, one.colour, one.note) == ("cat 50%", GREY, "one.png")
    assert one.picture is not None
    assert (cut.title, cut.colour, cut.picture) == ("broken image: it is cut", GREY, None)
    assert choice.title() == "2 images: 1 unlabelled, 1 unreadable"


def test_all_are_shown_where_there_is_room_in_their_order() -> None:
    choice = PictureChoice(10)
    for name in ("a", "b", "c"):
        note(choice, name, label="cat")
    assert notes(choice.tiles()) == ["a", "b", "c"]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_grid_is_drawn_for_any_number_of_tiles(number: int) -> None:
    picture = thumbnail(IMAGE)
    tile = Tile.of(picture, actual="cat", predicted="dog", probability=0.25, note="x" * 99)
    figure = picture_grid([tile] * number, title="some")
    assert [axes.get_title() for axes in figure.axes[:number]] == ["cat →\ndog 25%"] * number
    with Image.open(io.BytesIO(png(figure))) as image:
        assert image.format == "PNG"


def test_what_cannot_be_read_is_shown_as_such() -> None:
    figure = picture_grid([Tile("gone", colour=GREY)], title="some")
    assert texts(figure) == ["unreadable"]
    assert png(figure)


@pytest.mark.parametrize("size", [(8, 8), (400, 533), (1200, 100)])
def test_thumbnails_keep_their_shape_and_never_grow(size: tuple[int, int]) -> None:
    small = thumbnail(encoded(size))
    assert small is not None
    assert max(small.size) == min(240, max(size))
    assert small.width / small.height == pytest.approx(size[0] / size[1], rel=0.05)


def test_a_thumbnail_of_nothing_is_none(tmp_path: Path) -> None:
    assert thumbnail(b"text") is None
    assert thumbnail(tmp_path / "missing.png") is None


def test_names_that_would_be_formulas_or_have_no_letters_are_drawn() -> None:
    tile = Tile.of(thumbnail(IMAGE), actual="$x_1$", predicted="日本", probability=1, note="$\\x")
    assert png(picture_grid([tile], title="some"))
