"""The Polyvore data set (github.com/xthan/polyvore-dataset) as labelled images of items.

    train_no_dup.json, valid_no_dup.json, test_no_dup.json   outfits: set_id, items
    category_id.txt                                          lines of `<id> <name>`
    images/<set_id>/<index>.jpg                              one image an item

An item's class is its category, or what the configuration maps its category to. All items
of an outfit belong in one split, the one whose file lists the outfit.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from darkroom.base.errors import UserError
from darkroom.config.sections import Split
from darkroom.data.image_folder import is_image_name
from darkroom.data.labels import Collection, LabelledFile, labelled
from darkroom.data.listing import FileEntry, Listing

MISSING_IMAGE = "item without an image"
UNMAPPED = "item of a category that is mapped to no class"
TWO_SPLITS = "item of an outfit that another split lists too"
TWICE = "item listed twice"
UNLISTED = "image that no outfit lists"

_OUTFIT_FILES: dict[Split, str] = {
    "test": "test_no_dup.json",
    "validation": "valid_no_dup.json",
    "train": "train_no_dup.json",
}
"""In order of precedence: an outfit that two files list stays in the first of these."""

_CATEGORIES = "category_id.txt"
_IMAGE_FOLDERS = ("images", "data/images", "../images", "../data/images")
_PROBLEMS_SHOWN = 5


class _Item(BaseModel):
    index: int
    categoryid: int


class _Outfit(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    set_id: str
    items: tuple[_Item, ...]


def read_polyvore(
    listing: Listing, *, root: Path, classes: Mapping[str, Sequence[int]]
) -> Collection:
    """Understand a folder as the Polyvore data set.

    Args:
        classes: class name to category ids; empty: each category is a class by its name.

    Raises:
        UserError: files are missing or malformed, or the mapping contradicts itself.
    """
    folder = _folder_of_outfits(listing, root=root)
    images = _images_by_item(listing, folder=folder)
    class_of = _class_by_category(classes, file=root / folder / _CATEGORIES)
    left_out = Counter(listing.left_out)
    outfits = _outfits(_outfit_files(root / folder), left_out=left_out)
    files = tuple(_labelled_items(outfits, images=images, class_of=class_of, left_out=left_out))
    if unlisted := len(images):
        left_out[UNLISTED] += unlisted
    return Collection(folder="", files=tuple(sorted(files, key=_by_path)), left_out=left_out)


def _by_path(file: LabelledFile) -> str:
    return file.path


def _folder_of_outfits(listing: Listing, *, root: Path) -> str:
    """The topmost folder with the outfits of the train split."""
    found = [
        PurePosixPath(file.path).parent
        for file in listing.files
        if PurePosixPath(file.path).name == _OUTFIT_FILES["train"]
    ]
    if not found:
        raise UserError(
            f"{str(root)!r} is not the Polyvore data set: it has no {_OUTFIT_FILES['train']!r}. "
            "Unpack polyvore.tar.gz there, beside the folder 'images'."
        )
    return str(min(found, key=lambda folder: (len(folder.parts), folder)))


def _images_by_item(listing: Listing, *, folder: str) -> dict[str, FileEntry]:
    """Image files by `<set_id>/<index>`, from the first image folder that has any."""
    images = [file for file in listing.files if is_image_name(file.path)]
    for name in _IMAGE_FOLDERS:
        base = PurePosixPath(folder)
        place = base.parent / name[3:] if name.startswith("../") else base / name
        prefix = f"{place}/"
        found = [file for file in images if file.path.startswith(prefix)]
        if found:
            return {file.path[len(prefix) :].rpartition(".")[0]: file for file in found}
    raise UserError(
        f"no images of the Polyvore data set: looked for 'images/<set_id>/<index>.jpg' and "
        f"'data/images/…' beside {_OUTFIT_FILES['train']!r}."
    )


def _outfit_files(folder: Path) -> dict[Split, Path]:
    return {
        split: folder / name for split, name in _OUTFIT_FILES.items() if (folder / name).exists()
    }


def _outfits(
    files: Mapping[Split, Path], *, left_out: Counter[str]
) -> Iterator[tuple[Split, _Outfit]]:
    """All outfits, each in one split only."""
    split_of: dict[str, Split] = {}
    for split, file in files.items():
        for outfit in _read_outfits(file):
            if split_of.setdefault(outfit.set_id, split) == split:
                yield split, outfit
            else:
                left_out[TWO_SPLITS] += len(outfit.items)


def _read_outfits(file: Path) -> list[_Outfit]:
    try:
        return TypeAdapter(list[_Outfit]).validate_json(file.read_bytes())
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [
            f"{str(file)!r}: {_place(problem['loc'])}{problem['msg']}."
            for problem in found[:_PROBLEMS_SHOWN]
        ]
        more = len(found) - _PROBLEMS_SHOWN
        rest = [f"{str(file)!r}: {more} more such problems."] if more > 0 else []
        raise UserError([*problems, *rest, "Fetch the file again, or repair it."]) from error


def _place(location: tuple[int | str, ...]) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return f"at {where.lstrip('.')}: " if where else ""


def _labelled_items(
    outfits: Iterator[tuple[Split, _Outfit]],
    *,
    images: dict[str, FileEntry],
    class_of: Mapping[int, str],
    left_out: Counter[str],
) -> Iterator[LabelledFile]:
    """The items with an image and a class; takes what an outfit lists out of `images`."""
    seen: set[str] = set()
    for split, outfit in outfits:
        for item in outfit.items:
            key = f"{outfit.set_id}/{item.index}"
            image, label = images.pop(key, None), class_of.get(item.categoryid)
            if key in seen:
                left_out[TWICE] += 1
            elif image is None:
                left_out[MISSING_IMAGE] += 1
            elif label is None:
                left_out[UNMAPPED] += 1
            else:
                yield labelled(image, label=label, split=split, group=outfit.set_id)
            seen.add(key)


def _class_by_category(classes: Mapping[str, Sequence[int]], *, file: Path) -> dict[int, str]:
    if not classes:
        return _read_categories(file)
    pairs = [(category, name) for name, categories in classes.items() for category in categories]
    counts = Counter(category for category, _ in pairs)
    if twice := sorted(category for category, count in counts.items() if count > 1):
        raise UserError(
            f"data.polyvore_classes names the categories {twice} more than once. "
            "Each category may belong to one class."
        )
    return dict(pairs)


def _read_categories(file: Path) -> dict[int, str]:
    if not file.is_file():
        raise UserError(
            f"{str(file)!r} is missing. It names the categories; without it, say in "
            "data.polyvore_classes which category ids make up each class."
        )
    lines = file.read_text(encoding="utf-8").splitlines()
    parted = [(number, *line.strip().partition(" ")) for number, line in enumerate(lines, start=1)]
    bad = [
        number
        for number, category, _, name in parted
        if (category or name) and not (category.isdecimal() and name.strip())
    ]
    if bad:
        raise UserError(f"{str(file)!r}: lines {bad[:_PROBLEMS_SHOWN]} are not '<id> <name>'.")
    return {int(category): name.strip() for _, category, _, name in parted if category}
