"""Class folders, with or without splits above or below them, as labelled files.

    cat/1.jpg  dog/2.jpg                       splits are made later
    train/cat/1.jpg  Testing/cat/2.jpg  …      splits as given, under any of their usual names
    cat/train/1.jpg  cat/test/2.jpg  …         splits inside the class folders
    dogImages/train/cat/1.jpg  …               folders around all that are looked through

Works on paths alone, so an archive or a bucket is understood before it is fetched. What can
be read in two ways is refused, with the setting that picks each. docs/data.md has the table.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from darkroom.base.errors import UserError
from darkroom.config import DataConfig
from darkroom.config.sections import SPLITS, Split
from darkroom.data.labels import (
    Collection,
    LabelledFile,
    labelled,
    recognise_splits,
    some,
    split_named,
)
from darkroom.data.listing import FileEntry, LeftOut, Listing

_IMAGE_EXTENSIONS_TEXT = (
    ".jpg .jpeg .jpe .jfif .jif .mpo .png .apng .webp .bmp .dib .gif .tif .tiff .avif .avifs "
    ".heic .heif .hif .ppm .pgm .pbm .pnm"
)
IMAGE_EXTENSIONS = frozenset(_IMAGE_EXTENSIONS_TEXT.split())
"""Files taken for images, in any case: those of darkroom.images.EXTENSIONS."""

_DOCUMENT_EXTENSIONS_TEXT = (
    ".txt .md .rst .csv .tsv .json .jsonl .ndjson .xml .yaml .yml .html .htm .pdf .doc .docx "
    ".rtf .xls .xlsx .ods .mat .py .ipynb .log .names .cfg .ini .toml .sh .m .tex .bib .lst"
)
DOCUMENT_EXTENSIONS = frozenset(_DOCUMENT_EXTENSIONS_TEXT.split())
"""Files that lie beside images and are none: their absence from a class is no loss."""

_ARCHIVE_EXTENSIONS = frozenset(
    [".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar"]
)

NOT_AN_IMAGE = "not an image, by its extension"
NESTED = "archive inside the source, which is not unpacked: do so, and give the folder"
DOCUMENT = "text, table or other document"
NO_CLASS = "image outside the class folders"
NO_CLASS_IN_SPLIT = "image in a split's folder, outside its class folders"
BESIDE_SPLITS = "image in a folder beside the splits"
COMPANION = "mask, annotation or thumbnail, by the name of its folder"
MASK = "mask of the image beside it, by its name"
REPEATED = "in a folder that holds the class folders once more"
EXCLUDED = "left out by data.exclude"

HARMLESS_REASONS = frozenset({DOCUMENT, EXCLUDED})
"""What is left out as it should be."""

_IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages", "jpg"})
"""Folders that hold images of all classes, and are no class."""

_COMPANIONS_TEXT = (
    "mask masks annotation annotations trimap trimaps segmentation segmentations segmim "
    "labels ground_truth groundtruth gt bbox bboxes boxes xml xmls thumbnails thumbs docs doc "
    "documentation meta metadata papers code src scripts"
)
_COMPANIONS = frozenset(_COMPANIONS_TEXT.split())
_MASK_OF = re.compile(r"(.+)[-_ .](?:mask|segmentation|superpixels)(?:[-_ .]?\d+)?", re.IGNORECASE)
"""'benign (1)_mask_1.png' beside 'benign (1).png'."""
_PARTS = frozenset({"images", "image", "img", "imgs", "part", "batch", "chunk", "vol", "zip"})


@dataclass
class _Folder:
    """A folder of the listing; those whose names differ in their form of Unicode alone are one."""

    path: str
    """Of the first such folder, as it is written in the source."""
    name: str
    images: list[FileEntry] = field(default_factory=list)
    others: list[FileEntry] = field(default_factory=list)
    """Neither images nor documents."""
    documents: int = 0
    children: "dict[str, _Folder]" = field(default_factory=dict)
    total: int = 0
    """Images here and below."""
    has_two_paths: bool = False

    @property
    def filled(self) -> "list[_Folder]":
        """The folders in it that hold images."""
        return [child for child in self.children.values() if child.total]

    def all_images(self) -> Iterator[FileEntry]:
        """The images here and below."""
        yield from self.images
        for child in self.children.values():
            yield from child.all_images()

    def all_others(self) -> Iterator[FileEntry]:
        """What is neither image nor document, here and below."""
        yield from self.others
        for child in self.children.values():
            yield from child.all_others()

    def all_folders(self) -> "Iterator[_Folder]":
        """This folder and all below."""
        yield self
        for child in self.children.values():
            yield from child.all_folders()


@dataclass(frozen=True)
class _Class:
    """A folder of one class, in one split."""

    folder: _Folder
    label: str
    split: Split | None


@dataclass(frozen=True)
class _Reading:
    """One way to understand a folder."""

    top: _Folder
    classes: Sequence[_Class]
    text: str
    dropped: Sequence[tuple[_Folder, str]] = ()
    """Folders whose images are left out where no class has them, and why."""


class AmbiguousLayoutError(UserError):
    """A folder that can be read in two ways, or in none that is certain."""


def read_image_folder(
    listing: Listing, *, config: DataConfig | None = None, source: str = "the source"
) -> Collection:
    """Understand a listing as class folders.

    The class is the name of the top folder, or of the folder below the split's; what lies
    deeper belongs to it. Every file that is not used is counted in `left_out`. Whether the
    result can be trained on is not judged here.

    Raises:
        AmbiguousLayoutError: the folders can be read in two ways.
        UserError: data.splits or data.exclude name what is not there.
    """
    config = config or DataConfig()
    listing = exclude(listing, patterns=config.exclude)
    left_out = LeftOut(listing.left_out)
    tree = _tree(listing, left_out=left_out)
    reading = _read(tree, config=config, source=source)
    return _collect(reading, tree=tree, left_out=left_out)


def exclude(listing: Listing, *, patterns: Sequence[str]) -> Listing:
    """The listing without what data.exclude names: folders, files, or patterns of either.

    Raises:
        UserError: a pattern matches nothing.
    """
    if not patterns:
        return listing
    left_out = LeftOut(listing.left_out)
    kept: list[FileEntry] = []
    unmatched = set(patterns)
    for file in listing.files:
        found = {pattern for pattern in patterns if _matches(file.path, pattern=pattern)}
        unmatched -= found
        if found:
            left_out.add(EXCLUDED, file.path)
        else:
            kept.append(file)
    folders = []
    for folder in listing.empty_folders:
        found = {pattern for pattern in patterns if _matches(folder, pattern=pattern)}
        unmatched -= found
        folders += [] if found else [folder]
    if unmatched:
        raise UserError(
            f"data.exclude: nothing of the source matches {some(sorted(unmatched))}. Name folders "
            "or files by their path, such as 'train/unsorted', or by a pattern, such as '*/masks'."
        )
    return Listing(tuple(kept), left_out, tuple(folders))


def is_image_name(path: str) -> bool:
    """Whether a file's extension is one of an image."""
    return PurePosixPath(path).suffix.lower() in IMAGE_EXTENSIONS


def count_others(listing: Listing, *, left_out: LeftOut) -> None:
    """Count the files of a listing that are no images."""
    _tree(listing, left_out=left_out)


def same_text(text: str) -> str:
    """A name in the form of Unicode by which names are compared."""
    return unicodedata.normalize("NFC", text)


def _matches(path: str, *, pattern: str) -> bool:
    """Whether a path, or a folder around it, is what a pattern names."""
    parts = same_text(path).split("/")
    wanted = same_text(pattern).strip("/")
    return any(
        fnmatchcase("/".join(parts[start:end]), wanted)
        for end in range(1, len(parts) + 1)
        for start in ((0,) if "/" in wanted else range(end))
    )


def _tree(listing: Listing, *, left_out: LeftOut) -> _Folder:
    """The folders of a listing; files that are no images are counted in `left_out`."""
    root = _Folder("", "")
    for path in listing.empty_folders:
        _folder_at(root, path)
    for file in listing.files:
        place, _, name = file.path.rpartition("/")
        folder = _folder_at(root, place)
        extension = PurePosixPath(name).suffix.lower()
        if extension in IMAGE_EXTENSIONS or file.is_image:
            folder.images.append(file)
        elif extension in DOCUMENT_EXTENSIONS:
            left_out.add(DOCUMENT, file.path)
            folder.documents += 1
        else:
            reason = NESTED if extension in _ARCHIVE_EXTENSIONS else NOT_AN_IMAGE
            left_out.add(reason, file.path)
            folder.others.append(file)
    _count(root)
    return root


def _folder_at(root: _Folder, path: str) -> _Folder:
    folder = root
    for part in path.split("/") if path else ():
        inner = f"{folder.path}/{part}".lstrip("/")
        child = folder.children.setdefault(same_text(part), _Folder(inner, same_text(part)))
        if child.path != inner:
            child.has_two_paths = True
        folder = child
    return folder


def _count(folder: _Folder) -> int:
    folder.total = len(folder.images) + sum(_count(child) for child in folder.children.values())
    return folder.total


def _read(tree: _Folder, *, config: DataConfig, source: str) -> _Reading:
    if config.splits.named:
        return _read_named_splits(tree, named=config.splits.named)
    if config.layout == "classes":
        return _read_classes(_look_through(tree, splits_count=False))
    return _Layout(_look_through(tree, splits_count=True), source=source).read()


def _look_through(folder: _Folder, *, splits_count: bool) -> _Folder:
    """Descend while all images lie below one folder that is neither a split nor a class."""
    while (child := _only_folder(folder)) is not None:
        if splits_count and split_named(child.name):
            break
        folder = child
    return folder


def _only_folder(folder: _Folder) -> _Folder | None:
    """The one folder in a folder that holds all classes, or splits."""
    filled = folder.filled
    if len(filled) > 1:  # images/<class>/ beside masks/
        filled = [child for child in filled if child.name.lower() not in _COMPANIONS]
        if len(filled) != 1 or filled[0].name.lower() not in _IMAGES or not filled[0].filled:
            return None
    if len(filled) != 1:
        return None
    child = filled[0]
    beside = [
        other
        for other in folder.children.values()
        if other is not child and other.name.lower() not in _COMPANIONS
    ]
    if any(next(other.all_others(), None) for other in beside):
        return None  # a class folder of files that cannot be read lies beside it
    deeper = child.filled
    if not deeper or len(child.images) > len(deeper) or (child.images and len(deeper) == 1):
        return None
    return child


class _Layout:
    """What the folders in one folder are: splits, classes, or uncertain."""

    def __init__(self, top: _Folder, *, source: str) -> None:
        self._top, self._source = top, source
        self._filled = top.filled
        splits = recognise_splits(child.name for child in self._filled)
        self._splits = {
            child.name: splits[child.name] for child in self._filled if child.name in splits
        }
        self._rest = [child for child in self._filled if child.name not in splits]

    def read(self) -> _Reading:
        """The one way to read it.

        Raises:
            AmbiguousLayoutError: there are two, or none that is certain.
        """
        if not self._splits:
            return self._read_without_splits()
        if not self._rest:
            return self._read_splits()
        kinds = set(self._splits.values())
        trained = any(
            split == "train" and self._top.children[name].filled
            for name, split in self._splits.items()
        )
        if trained and len(kinds) > 1:
            self._refuse_splits_of_other_names()
            return self._read_splits()
        if not trained and all(self._repeats_the_rest(child) for child in self._held_out()):
            return self._read_classes_beside_splits()
        if trained or len(kinds) > 1 or self._some_split_repeats_the_rest():
            raise self._splits_or_classes()
        return self._read_without_splits()

    def _read_splits(self) -> _Reading:
        folders = {self._top.children[name].path: split for name, split in self._splits.items()}
        by_path = {child.path: child for child in self._filled}
        return _read_splits(
            self._top,
            folders=[(by_path[path], split) for path, split in folders.items()],
            dropped=[(child, BESIDE_SPLITS) for child in self._rest],
        )

    def _held_out(self) -> list[_Folder]:
        return [self._top.children[name] for name in self._splits]

    def _read_classes_beside_splits(self) -> _Reading:
        """cat/ and dog/ beside test/cat/ and test/dog/."""
        classes = [_Class(child, child.name, "train") for child in self._rest]
        for child in self._held_out():
            split = self._splits[child.name]
            classes += [_Class(deeper, deeper.name, split) for deeper in child.filled]
        classes += [_Class(child, child.name, None) for child in _unfilled(self._top)]
        return _Reading(
            self._top,
            classes,
            text=f"class folders{_where(self._top)} → train, beside splits: "
            f"{_arrows(self._splits)}",
            dropped=[(child, NO_CLASS_IN_SPLIT) for child in self._held_out()],
        )

    def _read_without_splits(self) -> _Reading:
        if reading := self._read_splits_in_classes():
            return reading
        repeated = [child for child in self._filled if self._repeats_the_rest(child)]
        if not repeated:
            self._refuse_shared_folders()
        self._refuse_folders_of_images()
        return _read_classes(self._top, repeated=repeated)

    def _read_splits_in_classes(self) -> _Reading | None:
        inner = {
            child.name: recognise_splits(deeper.name for deeper in child.filled)
            for child in self._filled
        }
        holds_splits = [
            child
            for child in self._filled
            if _has_splits(child) or _has_splits(_look_through(child, splits_count=True))
        ]
        if not holds_splits:
            return None
        whole = all(
            child.filled and not child.images and len(inner[child.name]) == len(child.filled)
            for child in self._filled
        )
        nested = any(deeper.filled for child in self._filled for deeper in child.filled)
        named = [child.name for child in self._filled]
        if not whole or nested or any(name.lower() in _IMAGES | _COMPANIONS for name in named):
            raise AmbiguousLayoutError(
                f"{self._source!r}: there are splits inside {_folders(holds_splits)}, and other "
                f"folders with images: {some(named)} lie side by side. Name one as the data "
                "source, or its folders by data.splits, such as "
                f"{_setting(_splits_below(holds_splits[0]))}, or say that they are "
                "the classes by --set data.layout=classes."
            )
        classes = [
            _Class(deeper, child.name, inner[child.name][deeper.name])
            for child in self._filled
            for deeper in child.filled
        ]
        pairs = {
            deeper.name: split
            for child in self._filled
            for deeper in child.filled
            if (split := inner[child.name][deeper.name])
        }
        unusable = [_Class(child, child.name, None) for child in _unfilled(self._top)]
        return _Reading(
            self._top,
            [*classes, *unusable],
            text=f"splits inside the class folders{_where(self._top)}: {_arrows(pairs)}",
        )

    def _repeats_the_rest(self, child: _Folder) -> bool:
        """Whether the folders in a folder bear the names of those beside it."""
        siblings = {other.name for other in self._filled if other is not child}
        inside = {deeper.name for deeper in child.filled}
        shared = siblings & inside
        return len(shared) > 1 and 2 * len(shared) >= max(len(siblings), len(inside))

    def _some_split_repeats_the_rest(self) -> bool:
        """Whether a folder named like a split holds the same folders as one that is not."""
        return any(
            _alike([self._top.children[name], other])
            for name in self._splits
            for other in self._rest
        )

    def _refuse_splits_of_other_names(self) -> None:
        train = [
            self._top.children[name] for name, split in self._splits.items() if split == "train"
        ]
        unknown = [other for other in self._rest if any(_alike([other, one]) for one in train)]
        if unknown:
            known: dict[str, str] = {split: name for name, split in self._splits.items()}
            raise AmbiguousLayoutError(
                f"{self._source!r}: the classes of {_folders(train)} are in "
                f"{_folders(unknown)}, too, which is no split by its name. Say what it is: "
                f"{_setting({**known, 'validation': unknown[0].name})}, or leave it out by "
                f"--set 'data.exclude=[{unknown[0].name}]'."
            )

    def _refuse_shared_folders(self) -> None:
        """The same folders in each folder: the classes may be above or below."""
        if len(self._filled) < 2 or not _alike(self._filled):
            return
        below = sorted({deeper.name for child in self._filled for deeper in _inside(child).filled})
        above = [child.name for child in self._filled]
        if {name.lower() for name in below} <= _IMAGES | _COMPANIONS:
            return
        years = all(name.isdecimal() for name in below) and len(below) <= len(above)
        if years and not all(name.isdecimal() for name in above):
            return
        names = [c.name for c in sorted(self._filled, key=lambda child: -child.total)]
        raise AmbiguousLayoutError(
            f"{self._source!r} can be read in two ways, since each of {some(above)} holds the same "
            f"folders. Either the upper folders are the classes: --set data.layout=classes. Or the "
            f"lower ones are, {some(below)}: then say which upper folders are which split, such as "
            f"{_setting({'train': names[0], 'test': names[-1]})}, or name one of them as the data "
            "source."
        )

    def _refuse_folders_of_images(self) -> None:
        """Folders that say that they hold images, not which."""
        names = [child.name for child in self._filled]
        holders = [name for name in names if name.lower() in _IMAGES]
        bases = {_without_numbers(name) for name in names}
        parts = len(names) > 1 and len(bases) == 1 and bases.pop() & _PARTS
        if len(names) > 1 and (holders or parts):
            raise AmbiguousLayoutError(
                f"{self._source!r}: the folders {some(names)} do not look like classes. Name a "
                "file with labels by data.labels, leave folders out by data.exclude, or say "
                "that they are the classes by --set data.layout=classes."
            )

    def _splits_or_classes(self) -> AmbiguousLayoutError:
        names = [child.name for child in self._filled]
        folders = [self._top.children[name] for name in self._splits]
        below = sorted({deeper.name for child in folders for deeper in child.filled})
        rest = sum(child.total for child in self._rest)
        split_reading = (
            f"{_arrows(self._splits)}, with the classes {some(below)}, and "
            f"{some(child.name for child in self._rest)} left out ({rest:,} images)"
            if below
            else f"{_arrows(self._splits)}, without class folders: a file with labels is needed, "
            "data.labels"
        )
        return AmbiguousLayoutError(
            f"{self._source!r} can be read in two ways, since {_folders(folders)} may be a split "
            f"or a class. As splits: {split_reading}; to read it so, "
            f"{_setting({split: name for name, split in self._splits.items()})}. As the classes "
            f"{some(names)}; to read it so, --set data.layout=classes."
        )


def _read_classes(top: _Folder, *, repeated: Sequence[_Folder] = ()) -> _Reading:
    folders = [child for child in top.filled if child not in repeated]
    classes = [_Class(child, child.name, None) for child in [*folders, *_unfilled(top)]]
    dropped = [(child, REPEATED) for child in repeated]
    dropped += [(mask, COMPANION) for child in folders for mask in _companions(child)]
    return _Reading(top, classes, text=f"class folders{_where(top)}, no splits", dropped=dropped)


def _read_named_splits(tree: _Folder, *, named: Mapping[Split, Sequence[str]]) -> _Reading:
    folders: list[tuple[_Folder, Split]] = []
    problems: list[str] = []
    for split, names in named.items():
        for name in names:
            found = _folders_named(tree, name=name)
            if len(found) == 1:
                folders.append((found[0], split))
            else:
                problems.append(_not_one_folder(tree, split=split, name=name, found=found))
    for position, (one, split) in enumerate(folders):
        for other, other_split in folders[position + 1 :]:
            inside = any(folder is other for folder in one.all_folders())
            if inside or any(folder is one for folder in other.all_folders()):
                problems.append(
                    f"data.splits: the folder {one.path!r} of {split} and {other.path!r} of "
                    f"{other_split} lie in one another. Name folders that are apart."
                )
    if problems:
        raise UserError(problems)
    return _read_splits(_common(tree, [folder for folder, _ in folders]), folders=folders)


def split_of_path(listing: Listing, *, named: Mapping[Split, Sequence[str]]) -> dict[str, Split]:
    """The split of each image by the folders that data.splits names, by path."""
    tree = _tree(listing, left_out=LeftOut())
    return {
        file.path: split
        for split, names in named.items()
        for name in names
        for folder in _folders_named(tree, name=name)
        for file in folder.all_images()
    }


def _folders_named(tree: _Folder, *, name: str) -> list[_Folder]:
    """The folder at a path from the top, or else all whose path ends with it."""
    wanted = [
        same_text(part) for part in name.replace("\\", "/").split("/") if part not in ("", ".")
    ]
    here: _Folder | None = tree
    for part in wanted:
        here = here.children.get(part) if here else None
    if here is not None and wanted:
        return [here]
    end = "/" + "/".join(wanted)
    return (
        [f for f in tree.all_folders() if f"/{same_text(f.path)}".endswith(end)] if wanted else []
    )


def _not_one_folder(tree: _Folder, *, split: Split, name: str, found: Sequence[_Folder]) -> str:
    if found:
        places = some(folder.path for folder in found)
        return f"data.splits.{split}: {name!r} may be {places}. Write the whole path."
    there = [
        folder.path for folder in tree.all_folders() if folder.path.count("/") < 2 and folder.path
    ]
    return f"data.splits.{split}: there is no folder {name!r}; there are {some(there) or 'none'}."


def _common(tree: _Folder, folders: Sequence[_Folder]) -> _Folder:
    """The deepest folder that holds them all."""
    top = tree
    while True:
        deeper = [
            child
            for child in top.children.values()
            if all(f is not child and any(f is g for g in child.all_folders()) for f in folders)
        ]
        if not deeper:
            return top
        top = deeper[0]


def _read_splits(
    top: _Folder,
    *,
    folders: Sequence[tuple[_Folder, Split]],
    dropped: Sequence[tuple[_Folder, str]] = (),
) -> _Reading:
    known = {
        child.name for folder, _ in folders if len(folder.filled) > 1 for child in folder.filled
    }
    classes: list[_Class] = []
    leaving: list[tuple[_Folder, str]] = list(dropped)
    empty: list[str] = []
    for folder, split in folders:
        inner = _inside_split(folder, known=known)
        found = inner.filled
        names = {child.name.lower() for child in found}
        if names <= _IMAGES | _COMPANIONS and names & _IMAGES:
            found = []
        if not found:
            empty.append(folder.name)
        classes += [_Class(child, child.name, split) for child in [*found, *_unfilled(inner)]]
        leaving += [(mask, COMPANION) for child in found for mask in _companions(child)]
        leaving.append((folder, NO_CLASS_IN_SPLIT))
    arrows = {_below(folder.path, top=top): split for folder, split in folders}
    without = f" ({some(empty)} without class folders)" if empty else ""
    return _Reading(
        top, classes, text=f"splits{_where(top)}: {_arrows(arrows)}{without}", dropped=leaving
    )


def _inside_split(folder: _Folder, *, known: set[str]) -> _Folder:
    """Look through the folders between a split's and its class folders: seg_train/seg_train/."""
    while True:
        filled = folder.filled
        if len(set(recognise_splits(child.name for child in filled).values())) > 1:
            raise AmbiguousLayoutError(
                f"the folder {folder.path!r} is a split by its name and holds splits itself "
                f"({some(child.name for child in filled)}). Name the data source more closely, or "
                f"the splits by data.splits, such as "
                f"{_setting({'train': filled[0].path})}."
            )
        if len(filled) != 1 or len(folder.images) > len(filled[0].filled):
            return folder
        child = filled[0]
        is_wrapper = (
            child.filled
            or child.name.lower() in _IMAGES | {folder.name.lower()}
            or split_named(child.name)
        )
        if child.name in known or not is_wrapper:
            return folder
        folder = child


def _companions(folder: _Folder) -> list[_Folder]:
    """Masks and the like inside a class folder that keeps its images in 'images'."""
    if not any(child.name.lower() in _IMAGES for child in folder.filled):
        return []
    return [child for child in folder.filled if child.name.lower() in _COMPANIONS]


def _masks(folder: _Folder) -> Iterator[FileEntry]:
    """Masks that lie beside their images and are called after them."""
    for inner in folder.all_folders():
        stems = {PurePosixPath(file.path).stem for file in inner.images}
        for file in inner.images:
            found = _MASK_OF.fullmatch(PurePosixPath(file.path).stem)
            if found and found[1] in stems:
                yield file


def _unfilled(top: _Folder) -> list[_Folder]:
    """Folders beside class folders that should hold images and do not."""
    return [
        child
        for child in top.children.values()
        if not child.total and child.name.lower() not in _COMPANIONS
    ]


def _splits_below(folder: _Folder) -> dict[str, str]:
    """A folder's splits, by what they are, as data.splits could name them."""
    inside = folder if _has_splits(folder) else _look_through(folder, splits_count=True)
    splits = recognise_splits(child.name for child in inside.filled)
    return {splits[c.name]: c.path for c in inside.filled if c.name in splits}


def _has_splits(folder: _Folder) -> bool:
    """Whether a folder holds one to train on and another split."""
    found = set(recognise_splits(child.name for child in folder.filled).values())
    return "train" in found and len(found) > 1


def _alike(folders: Sequence[_Folder]) -> bool:
    """Whether folders hold mostly folders of the same names, and hardly any images."""
    inside = [{child.name for child in _inside(folder).filled} for folder in folders]
    union = set[str]().union(*inside)
    if len(union) < 2 or any(len(f.images) > len(f.filled) for f in folders):
        return False
    return all(len(names) >= 0.6 * len(union) for names in inside)


def _inside(folder: _Folder) -> _Folder:
    """A folder, or the one called 'images' that holds all of it."""
    filled = folder.filled
    while len(filled) == 1 and filled[0].name.lower() in _IMAGES and not folder.images:
        folder, filled = filled[0], filled[0].filled
    return folder


def _collect(reading: _Reading, *, tree: _Folder, left_out: LeftOut) -> Collection:
    """The files of a reading. Every image becomes one of its files, or is left out."""
    top = reading.top
    base = "" if any(f.has_two_paths for f in _way(tree, top)) else top.path
    beside = {file.path: MASK for found in reading.classes for file in _masks(found.folder)}
    masks = {
        id(file)
        for folder, why in reading.dropped
        if why == COMPANION
        for file in folder.all_images()
    }
    files: dict[str, LabelledFile] = {}
    lost: Counter[str] = Counter()
    for found in reading.classes:
        for file in found.folder.all_images():
            if id(file) not in masks and file.path not in beside:
                entry = replace(file, path=_below(file.path, base=base))
                files[file.path] = labelled(entry, label=found.label, split=found.split)
        lost[found.label] += sum(1 for _ in found.folder.all_others())
    reasons = {
        file.path: reason
        for folder, reason in reversed(reading.dropped)
        for file in folder.all_images()
    }
    for file in tree.all_images():
        if file.path not in files:
            reason = beside.get(file.path) or reasons.get(file.path, NO_CLASS)
            left_out.add(reason, file.path)
    present = {file.label for file in files.values()}
    named = {same_text(found.label): found.folder.name for found in reading.classes}
    return Collection(
        folder=base,
        files=tuple(files[path] for path in sorted(files)),
        left_out=left_out,
        reading=reading.text,
        lost={label: count for label, count in sorted(lost.items()) if count},
        unusable=tuple(sorted(named[label] for label in named.keys() - present)),
    )


def _way(tree: _Folder, to: _Folder) -> Iterator[_Folder]:
    """The folders from the top to one of them."""
    folder = tree
    for part in to.path.split("/") if to.path else ():
        folder = folder.children[same_text(part)]
        yield folder


def _below(path: str, *, base: str = "", top: _Folder | None = None) -> str:
    """A path relative to a folder."""
    start = base if top is None else top.path
    return path[len(start) + 1 :] if start else path


def _where(top: _Folder) -> str:
    return f" in {top.path!r}" if top.path else ""


def _arrows(splits: Mapping[str, Split]) -> str:
    ordered = sorted(splits.items(), key=lambda pair: SPLITS.index(pair[1]))
    return ", ".join(f"{name} → {split}" for name, split in ordered)


def _folders(folders: Iterable[_Folder]) -> str:
    return some(folder.name for folder in folders)


def _setting(splits: Mapping[str, str]) -> str:
    """How to name splits on the command line."""
    pairs = ", ".join(f"{split}: {_in_yaml(name)}" for split, name in splits.items())
    return f"--set 'data.splits={{{pairs}}}'"


def _in_yaml(name: str) -> str:
    """A name as it has to be written inside braces."""
    return (
        name if re.fullmatch(r"[^\W\d][\w ./()-]*", name) else json.dumps(name, ensure_ascii=False)
    )


def _without_numbers(name: str) -> frozenset[str]:
    words = "".join(c if c.isalpha() else " " for c in name.casefold()).split()
    return frozenset(words)
