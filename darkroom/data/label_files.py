"""Files with a row an image: its path, class, and where there are any its split and group.

Kaggle's labels.csv and train.csv, Hugging Face's metadata.csv and metadata.jsonl, and what
people write themselves: separated by comma, semicolon, tab or bar, quoted or not, or one JSON
object a line. Nothing here opens an image.
"""

import csv
import io
import json
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from darkroom.base.errors import UserError
from darkroom.base.values import near_miss
from darkroom.config import DataConfig
from darkroom.config.sections import Split
from darkroom.data.image_folder import (
    NO_CLASS,
    count_others,
    is_image_name,
    same_text,
    split_of_path,
)
from darkroom.data.labels import (
    Collection,
    LabelledFile,
    labelled,
    recognise_splits,
    some,
    split_named,
)
from darkroom.data.listing import FileEntry, LeftOut, Listing

NO_ROW = "image without a row in the label file"
NO_LABEL = "image whose row in the label file names no class"
MISSING = "row of the label file whose image is not there"

LABEL_EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
MAX_BYTES = 256 * 2**20
"""Of a label file."""

DEEPEST = 4
"""Folders above a label file in a source."""

_NONE = "none"
_DELIMITERS = (",", ";", "\t", "|")
_PROBLEMS_SHOWN = 5
_FEW_IMAGES = 0.1
"""Share of a source's images that may lie beside label files that are of others: a logo."""
_JSON_LINES = frozenset({".jsonl", ".ndjson"})
_NO_SPACES = "Separate the cells by commas or tabs, so that names may hold spaces."

# Names of columns, in the order in which they are tried; without case, spaces and hyphens.
_PATH_NAMES_TEXT = (
    "filename filepath filepaths file path imagepath imagefile imagefilename imagename image "
    "imageid imageindex img imgid imgpath imgname idcode id name fname photo picture"
)
_LABEL_NAMES_TEXT = (
    "classname categoryname labelname label labels class category breed species diagnosis dx "
    "disease findinglabels target emotion variety tag classid categoryid labelid"
)
_SPLIT_NAMES_TEXT = "split subset partition usage dataset datasplit phase set"
_GROUP_NAMES_TEXT = (
    "group groupid patient patientid person personid subject subjectid participant participantid "
    "lesionid place placeid locationid"
)
_KNOWN: dict[str, tuple[str, ...]] = {
    "path": tuple(_PATH_NAMES_TEXT.split()),
    "label": tuple(_LABEL_NAMES_TEXT.split()),
    "split": tuple(_SPLIT_NAMES_TEXT.split()),
    "group": tuple(_GROUP_NAMES_TEXT.split()),
}
_SURELY_SPLITS = frozenset({"split", "subset", "partition", "datasplit", "usage"})
"""Columns of these names hold splits, whatever their values are called."""

_SETTINGS = {
    "path": "data.label_columns.path",
    "label": "data.label_columns.label",
    "split": "data.label_columns.split",
    "group": "data.group",
}


Rows = list[tuple[int, list[str]]]
"""Line number and cells of each row."""


@dataclass(frozen=True, slots=True)
class LabelRow:
    """What a label file says of one image."""

    line: int
    path: str
    label: str | None
    """As it is written; '' where the cell is empty, None where there is no such column."""
    split: str
    """As it is written."""
    group: str


@dataclass(frozen=True)
class LabelTable:
    """One label file."""

    name: str
    """As it was asked for."""
    folder: str
    """Where it lies in the source: paths may be relative to it."""
    rows: tuple[LabelRow, ...]
    columns: Mapping[str, str]
    """Names of the columns that were found, by what they hold."""

    @property
    def told(self) -> str:
        """Which columns are what, for people."""
        return f"{self.name} ({', '.join(f'{k} {v!r}' for k, v in self.columns.items())})"


def read_label_table(
    content: bytes, *, name: str, folder: str, config: DataConfig, is_known: "ImageFinder"
) -> LabelTable:
    """Understand a label file.

    Args:
        name: of the file, for messages; its extension says whether it is JSON Lines.
        is_known: the images, by which a file without a header is told.

    Raises:
        UserError: it is no text, has unbalanced quotes or rows of too many cells, or its
            columns are not known.
    """
    text = _text(content, name=name)
    if PurePosixPath(name).suffix.lower() in _JSON_LINES:
        header, rows = _json_rows(text, name=name)
    else:
        header, rows = _delimited_rows(text, name=name)
    wanted = {
        "path": config.label_columns.path,
        "label": config.label_columns.label,
        "split": config.label_columns.split,
        "group": config.group,
    }
    if not any(wanted.values()) and _has_no_header(header, folder=folder, is_known=is_known):
        rows = [(1, header), *rows]
        _check_words(rows, text=text, name=name)
        header = ["path", "label", *map(str, range(3, len(header) + 1))][: len(header)]
    columns = {
        what: column
        for what in wanted
        if (column := _column(what, wanted=wanted[what], header=header, name=name))
    }
    if not wanted["path"]:
        columns |= _column_of_file_names(header, rows=rows)
    if "path" not in columns:
        raise UserError(_unknown_columns("path", header=header, name=name))
    if "label" not in columns and len(header) == 2 and len(columns) == 1:
        columns["label"] = next(column for column in header if column != columns["path"])
    positions = {what: header.index(column) for what, column in columns.items()}
    return LabelTable(name, folder, tuple(_labels(rows, positions=positions, name=name)), columns)


def _check_words(rows: Rows, *, text: str, name: str) -> None:
    """Refuse classes of several words in a file whose cells nothing but spaces separate."""
    if PurePosixPath(name).suffix.lower() in _JSON_LINES or _delimiter(text.lstrip()):
        return
    words = [n for n, cells in rows if any(c.isalpha() for cell in cells[2:] for c in cell)]
    if words:
        raise UserError(
            f"label file {name!r}: the lines {some(map(str, words))} have words after the class. "
            f"{_NO_SPACES}"
        )


class ImageFinder:
    """The images of a source, found by what a label file calls them."""

    def __init__(self, listing: Listing) -> None:
        self._images = [file for file in listing.files if is_image_name(file.path)]
        self._by_end: dict[int, dict[str, list[FileEntry]]] = {}
        self._by_path = {same_text(file.path): file for file in self._images}
        self._has_images: dict[str, bool] = {}
        """Of folders that hold a label file: whether it speaks of what lies there."""
        self._folders = {part for path in self._by_path for part in path.split("/")[:-1]}

    def find(self, name: str, *, folder: str) -> list[FileEntry]:
        """The images that a name may mean: with or without folders, with or without extension.

        Args:
            folder: of the label file, relative to which the name may be.
        """
        wanted = same_text(name.replace("\\", "/"))
        is_absolute = wanted.startswith("/") or "://" in wanted or wanted[1:2] == ":"
        if not is_absolute:
            for path in (posixpath.normpath(posixpath.join(folder, wanted)), wanted):
                if path in self._by_path:
                    return [self._by_path[path]]
        parts = [part for part in posixpath.normpath(wanted).split("/") if part not in ("", "..")]
        depths = range(len(parts), 0, -1) if is_absolute or ".." in wanted else (len(parts),)
        for depth in depths:
            if found := self._ending("/".join(parts[-depth:]), depth=depth):
                above = parts[-depth - 1] if depth < len(parts) else ""
                return [] if above in self._folders else self._nearest(found, folder=folder)
        return []

    def _nearest(self, found: Sequence[FileEntry], *, folder: str) -> list[FileEntry]:
        """Those in the label file's own folder, where images lie there: train/metadata.csv."""
        start = f"{same_text(folder)}/"
        if folder not in self._has_images:
            inside = sum(path.startswith(start) for path in self._by_path) if folder else 0
            self._has_images[folder] = inside > _FEW_IMAGES * len(self._images)
        if not self._has_images[folder]:
            return [*found]
        return [file for file in found if same_text(file.path).startswith(start)]

    def _ending(self, end: str, *, depth: int) -> list[FileEntry]:
        """The images whose path ends so, else those that do but for the extension."""
        if depth not in self._by_end:
            index: dict[str, list[FileEntry]] = defaultdict(list)
            for file in self._images:
                path = "/".join(same_text(file.path).split("/")[-depth:])
                index[path].append(file)
                index["/" + _stem(path)].append(file)
            self._by_end[depth] = index
        index = self._by_end[depth]
        stem = _stem(end) if is_image_name(end) else end
        return index.get(end) or index.get(f"/{stem}") or []

    @property
    def images(self) -> Sequence[FileEntry]:
        """All of them."""
        return self._images


def read_by_labels(
    tables: Sequence[LabelTable],
    *,
    listing: Listing,
    finder: ImageFinder,
    config: DataConfig,
    by_folders: Collection | None = None,
) -> Collection:
    """Understand a source by its label files.

    Args:
        by_folders: the same source by its folders: where no file has a column of labels, they
            are the classes, and their splits count.

    Raises:
        UserError: rows contradict one another, name several images, or name unknown splits.
    """
    left_out = LeftOut(listing.left_out)
    problems: list[str] = []
    rows_of: dict[str, tuple[LabelTable, LabelRow]] = {}
    lost: dict[str, int] = defaultdict(int)
    for table in tables:
        found = _match(table, finder=finder, problems=problems)
        for row, file in found:
            if file is None:
                left_out.add(MISSING, f"{row.path} ({table.name}, line {row.line})")
                lost[same_text(row.label or "")] += bool(row.label)
                continue
            table_before, before = rows_of.setdefault(file.path, (table, row))
            if differing := _differences(before, row):
                problems.append(
                    f"{table.name!r}, line {row.line}: {file.path!r} has {differing}, but "
                    f"{table_before.name!r}, line {before.line}, says otherwise"
                )
    if problems:
        shown = problems[:_PROBLEMS_SHOWN]
        more = len(problems) - len(shown)
        raise UserError(
            [*shown, *([f"{more:,} more such problems"] if more else []), "Mend the label file."]
        )
    splits = _splits(rows_of, tables=tables, listing=listing, config=config)
    from_folders = (
        {f"{by_folders.folder}/{file.path}".lstrip("/"): file for file in by_folders.files}
        if by_folders
        else {}
    )
    files: list[LabelledFile] = []
    for image in finder.images:
        folder_says = from_folders.get(image.path)
        _, said = rows_of.get(image.path, (None, None))
        label = said.label if said else None
        if label is None and folder_says:
            label = folder_says.label
        if not label:
            reason = NO_CLASS if by_folders else NO_LABEL if label == "" else NO_ROW
            left_out.add(reason, image.path)
            continue
        split = splits.get(image.path) or (folder_says.split if folder_says else None)
        group = same_text(said.group) if said and said.group else None
        files.append(labelled(image, label=label, split=split, group=group))
    count_others(listing, left_out=left_out)
    told = " and ".join(table.told for table in tables)
    reading = f"{'groups' if by_folders else 'labels'} in {told}"
    if by_folders:
        reading = f"{by_folders.reading}; {reading}"
    elif splits:
        reading += f"; splits by {_split_origin(tables, config=config)}"
    if any("split" in table.columns for table in tables):
        silent = len(rows_of) - len(splits)
        if not splits:
            reading += "; its values are no splits, so they are made"
        elif silent:
            reading += f", empty for {silent:,} images, which count as train"
    return Collection(
        folder="",
        files=tuple(files),
        left_out=left_out,
        reading=reading,
        lost={label: count for label, count in sorted(lost.items()) if count},
    )


def _match(
    table: LabelTable, *, finder: ImageFinder, problems: list[str]
) -> Iterator[tuple[LabelRow, FileEntry | None]]:
    stem = PurePosixPath(table.name).stem
    for row in table.rows:
        found = finder.find(row.path, folder=table.folder)
        if len(found) > 1 and (split := split_named(stem)):  # train.csv beside train/ and test/
            found = [file for file in found if _split_in_path(file.path) == split] or found
        if len(found) > 1:
            paths = some(file.path for file in found)
            problems.append(
                f"{table.name!r}, line {row.line}: {row.path!r} may be {paths}; write its path"
            )
        else:
            yield row, found[0] if found else None


def _differences(one: LabelRow, other: LabelRow) -> str:
    return " and ".join(
        f"{what} {now!r} after {before!r}"
        for what, before, now in (
            ("the class", one.label, other.label),
            ("the split", one.split, other.split),
            ("the group", one.group, other.group),
        )
        if before != now
    )


def _splits(
    rows_of: Mapping[str, tuple[LabelTable, LabelRow]],
    *,
    tables: Sequence[LabelTable],
    listing: Listing,
    config: DataConfig,
) -> dict[str, Split]:
    """The split of each image: by its row, its file of labels, data.splits, or its folder."""
    if any("split" in table.columns for table in tables):
        by_value = _split_values(rows_of, tables=tables, config=config)
        if by_value:
            _check_all_say_splits(tables)
        return {
            path: by_value[row.split] for path, (_, row) in rows_of.items() if row.split in by_value
        }
    if named := config.splits.named:
        by_folder = split_of_path(listing, named=named)
        return {path: by_folder[path] for path in rows_of if path in by_folder}
    if config.label_columns.split == _NONE:
        return {}
    by_table = recognise_splits(PurePosixPath(table.name).stem for table in tables)
    splits = {
        path: by_table[stem]
        for path, (table, _) in rows_of.items()
        if (stem := PurePosixPath(table.name).stem) in by_table
    }
    if not _are_splits(splits):
        splits = {path: split for path in rows_of if (split := _split_in_path(path))}
    return splits if _are_splits(splits) else {}


def _are_splits(splits: Mapping[str, Split]) -> bool:
    kinds = set(splits.values())
    return "train" in kinds and len(kinds) > 1


def _split_in_path(path: str) -> Split | None:
    """The split that a folder of a path is named after, the topmost such."""
    for part in path.split("/")[:-1]:
        if split := split_named(part):
            return split
    return None


def _split_values(
    rows_of: Mapping[str, tuple[LabelTable, LabelRow]],
    *,
    tables: Sequence[LabelTable],
    config: DataConfig,
) -> dict[str, Split]:
    values = sorted({row.split for _, row in rows_of.values() if row.split})
    if named := config.splits.named:
        known: dict[str, Split] = {value: s for s, names in named.items() for value in names}
    else:
        known = recognise_splits(values)
    unknown = [value for value in values if value not in known]
    names = {_simplified(table.columns.get("split", "")) for table in tables}
    is_meant = config.label_columns.split or config.splits.named or names & _SURELY_SPLITS
    if unknown and (known.keys() & set(values) or is_meant):
        saying = ",".join(table.name for table in tables)
        saying = f"[{saying}]" if len(tables) > 1 else saying
        raise UserError(
            f"the split column of the label file has the values {some(unknown)}, which are no "
            f"known splits. Say which they are, such as by --set data.labels={saying} --set "
            f"'data.splits={{train: [{json.dumps(values[0], ensure_ascii=False)}], "
            f"test: [{json.dumps(values[-1], ensure_ascii=False)}]}}', or that the column is none "
            "by --set data.label_columns.split=none."
        )
    return known if not unknown else {}


def _check_all_say_splits(tables: Sequence[LabelTable]) -> None:
    """Refuse label files of which some have a column of splits: the rest is not just train."""
    saying = [table for table in tables if "split" in table.columns]
    if silent := [table.name for table in tables if "split" not in table.columns]:
        raise UserError(
            f"{saying[0].name!r} has the column {saying[0].columns['split']!r} of splits, and "
            f"{some(silent)} has none. Add it there, or ignore it by --set "
            "data.label_columns.split=none."
        )


def _split_origin(tables: Sequence[LabelTable], *, config: DataConfig) -> str:
    if column := next((t.columns["split"] for t in tables if "split" in t.columns), None):
        return f"column {column!r}"
    return "data.splits" if config.splits.named else "file and folder names"


def _text(content: bytes, *, name: str) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"label file {name!r} is no text in UTF-8 ({error.reason} at byte {error.start}). "
            "Save it as UTF-8."
        ) from error
    if not text.strip():
        raise UserError(f"label file {name!r} is empty. Give a row for each image.")
    return text


def _delimited_rows(text: str, *, name: str) -> tuple[list[str], Rows]:
    lines = _lines(text)
    delimiter = _delimiter(next(line for line in lines if line.strip()))
    if not delimiter:
        rows = [(n, line.split()) for n, line in enumerate(lines, start=1)]
    else:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
        )
        rows = []
        try:
            for cells in reader:
                rows.append((reader.line_num, cells))
        except csv.Error as error:
            raise UserError(
                f"label file {name!r}, line {reader.line_num}: {error}. Mend the quotes there."
            ) from error
    (_, header), *rest = [(line, cells) for line, cells in rows if any(c.strip() for c in cells)]
    header = [column.strip() for column in header]
    long = [n for n, cells in rest if any(c.strip() for c in cells[len(header) :])]
    if long:
        mend = f"Put cells that hold {delimiter!r} in quotes." if delimiter else _NO_SPACES
        raise UserError(
            f"label file {name!r}: the lines {some(map(str, long))} have more cells than the "
            f"header, {len(header)}. {mend}"
        )
    return header, [(n, [*cells, *[""] * len(header)][: len(header)]) for n, cells in rest]


def _lines(text: str) -> list[str]:
    """The lines of a text as an editor shows them: U+2028 and the like end none."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _delimiter(header: str) -> str:
    """What separates the columns; '' where spaces do, or there is one column."""
    outside = "".join(header.split('"')[::2])
    best = max(_DELIMITERS, key=outside.count)
    if outside.count(best):
        return best
    return "" if len(header.split()) > 1 and '"' not in header else ","


def _json_rows(text: str, *, name: str) -> tuple[list[str], Rows]:
    objects: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            # Numbers stay what was written.
            found = json.loads(line, parse_int=str, parse_float=str)
        except (ValueError, RecursionError) as error:
            raise UserError(f"label file {name!r}, line {number}: no JSON: {error}.") from error
        if not isinstance(found, dict):
            raise UserError(f"label file {name!r}, line {number}: {line[:40]!r} is no JSON object.")
        objects.append((number, found))
    header = list(dict.fromkeys(key for _, found in objects for key in found))
    return header, [(n, [_cell(found.get(key)) for key in header]) for n, found in objects]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _has_no_header(header: Sequence[str], *, folder: str, is_known: ImageFinder) -> bool:
    first = header[0]
    return _simplified(first) not in _KNOWN["path"] and bool(is_known.find(first, folder=folder))


def _column(what: str, *, wanted: str, header: Sequence[str], name: str) -> str | None:
    """The column that holds something: the one that is configured, or one of a known name."""
    if wanted == _NONE and what in ("split", "group"):
        return None
    if wanted:
        if wanted in header:
            return wanted
        match = near_miss(wanted, among=header)
        hint = f" Did you mean {match!r}?" if match else ""
        raise UserError(
            f"{_SETTINGS[what]}: label file {name!r} has no column {wanted!r}; it has "
            f"{some(header)}.{hint}"
        )
    simplified = {_simplified(column): column for column in reversed(header)}
    return next((simplified[known] for known in _KNOWN[what] if known in simplified), None)


def _column_of_file_names(header: Sequence[str], *, rows: Rows) -> dict[str, str]:
    """Of several columns that may hold the path, the first whose cells are names of images."""
    several = [
        (position, column)
        for known in _KNOWN["path"]
        for position, column in enumerate(header)
        if _simplified(column) == known
    ]
    for position, column in several if len(several) > 1 else ():
        if 2 * sum(is_image_name(cells[position].strip()) for _, cells in rows) > len(rows):
            return {"path": column}
    return {}


def _simplified(column: str) -> str:
    return "".join(c for c in same_text(column).casefold() if c.isalnum())


def _unknown_columns(what: str, *, header: Sequence[str], name: str) -> str:
    return (
        f"label file {name!r}: none of its columns ({some(header)}) is known to hold the "
        f"{what}. Name it by {_SETTINGS[what]}."
    )


def _labels(rows: Rows, *, positions: Mapping[str, int], name: str) -> Iterator[LabelRow]:
    nameless = []
    for line, cells in rows:
        cell = {what: cells[position] for what, position in positions.items()}
        if not cell["path"].strip():
            nameless.append(line)
            continue
        label = cell.get("label")
        if label is not None:
            label = same_text(label) if label.strip() else ""
        yield LabelRow(
            line=line,
            path=cell["path"].strip(),
            label=label,
            split=cell.get("split", "").strip(),
            group=same_text(cell.get("group", "").strip()),
        )
    if nameless:
        raise UserError(
            f"label file {name!r}: the lines {some(map(str, nameless))} name no image. Give each "
            "row the path of one, or remove it."
        )


def may_be_labels(path: str, *, size: int) -> bool:
    """Whether a file's name and size allow for a label file, or a list of a split."""
    return (
        PurePosixPath(path).suffix.lower() in LABEL_EXTENSIONS | {".txt"}
        and path.count("/") <= DEEPEST
        and size <= MAX_BYTES
    )


def _stem(path: str) -> str:
    return path.rpartition(".")[0] or path
