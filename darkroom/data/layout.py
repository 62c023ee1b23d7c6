"""Whether folders or files say what an image is, and what to do where both do."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from darkroom.base.errors import UserError
from darkroom.config import DataConfig
from darkroom.config.sections import Split
from darkroom.data.image_folder import (
    NO_CLASS_IN_SPLIT,
    AmbiguousLayoutError,
    exclude,
    read_image_folder,
    same_text,
)
from darkroom.data.label_files import (
    DEEPEST,
    LABEL_EXTENSIONS,
    MAX_BYTES,
    ImageFinder,
    LabelTable,
    may_be_labels,
    read_by_labels,
    read_label_table,
)
from darkroom.data.labels import Collection, LabelledFile, recognise_splits, some, split_named
from darkroom.data.listing import FileEntry, LeftOut, Listing

FileReader = Callable[[str], bytes]
"""The content of a file of the source, by its path there."""

NOT_LISTED = "image in none of the lists of the splits"

_TELLING = re.compile(r"label|metadata|annotation|data_?entry|ground_?truth", re.IGNORECASE)
_MAX_GUESSED_BYTES = 64 * 2**20
_MAX_GUESSED = 12
_MOSTLY = 0.5
_ALMOST_ALL = 0.95


def read_labelled(
    listing: Listing, *, config: DataConfig, source: str, read: FileReader | None
) -> Collection:
    """Understand a source by the label files that data.labels names, else by its folders.

    Where none is named: files of usual names say the classes where the folders do not, the
    splits of images without class folders, lists of splits, and groups. A file that contradicts
    the folders is refused.

    Args:
        read: None: label files cannot be read before the source is fetched.

    Raises:
        UserError: folders or files are ambiguous, malformed, or not there.
    """
    listing = exclude(listing, patterns=config.exclude)
    config = config.model_copy(update={"exclude": ()})
    guess = _Guess(listing, config=config, source=source, read=read)
    if config.label_files:
        tables = [guess.table(name) for name in config.label_files]
        return guess.by_tables(tables)
    if config.labels or config.layout == "classes" or read is None:
        if config.group not in ("", "none") and read is not None:
            raise UserError("data.group names a column: name its file by data.labels.")
        return read_image_folder(listing, config=config, source=source)
    return guess.read()


class _Guess:
    """A source whose label files are found by their names."""

    def __init__(
        self, listing: Listing, *, config: DataConfig, source: str, read: FileReader | None
    ) -> None:
        self._listing, self._config, self._source, self._read = listing, config, source, read
        self._finder = ImageFinder(listing)
        self._faults: list[str] = []
        """What is wrong with label files that nobody named."""

    def read(self) -> Collection:
        """The source by its folders, its files, or both.

        Raises:
            UserError: they contradict one another.
        """
        tables = self._known_tables()
        labelling = [t for t in tables if "label" in t.columns and self._share(t) >= _MOSTLY]
        grouping = [t for t in tables if "group" in t.columns and self._share(t) >= _MOSTLY]
        if self._config.group not in ("", "none") and not (labelling or grouping):
            raise UserError(
                f"data.group is {self._config.group!r}, but {self._source!r} has no known label "
                "file with that column. Name the file by data.labels."
            )
        try:
            found = read_image_folder(self._listing, config=self._config, source=self._source)
        except AmbiguousLayoutError:
            if self._config.splits.named or not labelling:
                raise
            return self._by_lists(self.by_tables(labelling))
        if len(found.classes) < 2 and not found.unusable and labelling:
            return self._by_lists(self.by_tables(labelling))
        if len(found.classes) < 2 and not found.unusable and self._faults:
            raise UserError(self._faults)  # it would be refused anyhow: say what is in the way
        found = self._by_lists(self._fill_in(found, tables=tables))
        for table in labelling:
            self._check_agreement(found, table=table)
        return self._with_groups(found, tables=grouping) if grouping else found

    def table(self, name: str) -> LabelTable:
        """A label file that is named: one of the source, or else one of this machine.

        Raises:
            UserError: there is none, or it cannot be understood.
        """
        wanted = same_text(name)
        inside = [file for file in self._listing.files if same_text(file.path) == wanted] or [
            file for file in self._listing.files if same_text(file.path).endswith(f"/{wanted}")
        ]
        if len(inside) > 1:
            paths = some(file.path for file in inside)
            raise UserError(f"data.labels: {name!r} may be {paths}. Write the whole path.")
        if inside and self._read:
            return self._parse(inside[0])
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(
                f"data.labels: {name!r} is a file neither of {self._source!r} nor of this machine. "
                f"{self._there()}"
            )
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"data.labels: {name!r} has more than {MAX_BYTES:,} bytes.")
        return read_label_table(
            path.read_bytes(), name=name, folder="", config=self._config, is_known=self._finder
        )

    def by_tables(self, tables: Sequence[LabelTable]) -> Collection:
        """The source by label files, and by its folders where they name no classes."""
        by_folders = None
        if not any("label" in table.columns for table in tables):
            if not any("group" in table.columns for table in tables):
                raise UserError(
                    f"label file {tables[0].name!r}: none of its columns is known to hold the "
                    "class, nor a group. Name it by data.label_columns.label, or data.group."
                )
            by_folders = read_image_folder(self._listing, config=self._config, source=self._source)
        return read_by_labels(
            tables,
            listing=self._listing,
            finder=self._finder,
            config=self._config,
            by_folders=by_folders,
        )

    def _parse(self, file: FileEntry) -> LabelTable:
        if not may_be_labels(file.path, size=file.size) or self._read is None:
            raise UserError(
                f"data.labels: {file.path!r} is no .csv, .tsv, .jsonl or .txt of at most "
                f"{MAX_BYTES:,} bytes in at most {DEEPEST} folders."
            )
        return read_label_table(
            self._read(file.path),
            name=file.path,
            folder=file.path.rpartition("/")[0],
            config=self._config,
            is_known=self._finder,
        )

    def _there(self) -> str:
        files = [f.path for f in self._listing.files if _extension(f.path) in LABEL_EXTENSIONS]
        return f"There are {some(files)}." if files else "The source has no such file at all."

    def _known_tables(self) -> list[LabelTable]:
        """The label files of usual names that can be understood."""
        tables = []
        for file in self._candidates():
            try:
                tables.append(self._parse(file))
            except UserError as error:  # a file that was not named may be anything
                self._faults += error.problems
        return tables

    def _candidates(self) -> list[FileEntry]:
        found = [
            file
            for file in self._listing.files
            if file.path.count("/") <= DEEPEST
            and file.size <= _MAX_GUESSED_BYTES
            and _may_hold_labels(PurePosixPath(file.path))
        ]
        return found if len(found) <= _MAX_GUESSED else []

    def _share(self, table: LabelTable) -> float:
        """Share of a table's rows whose images are there."""
        found = sum(bool(self._finder.find(row.path, folder=table.folder)) for row in table.rows)
        return found / max(len(table.rows), 1)

    def _fill_in(self, found: Collection, *, tables: Sequence[LabelTable]) -> Collection:
        """Images in a split's folder without class folders, by a file that names their classes.

        Tiny ImageNet's val_annotations.txt and GTSRB's Test.csv.
        """
        paths = {_whole(found, path=file.path) for file in found.files}
        classes = set(found.classes)
        added: dict[str, LabelledFile] = {}
        used = []
        for table in tables:
            if "label" not in table.columns:
                continue
            for row in table.rows:
                images = self._finder.find(row.path, folder=table.folder)
                label = same_text(row.label or "")
                if len(images) != 1 or images[0].path in paths or label not in classes:
                    continue
                image, split = images[0], _split_above(images[0].path)
                if split and _inside(found, path=image.path):
                    path = image.path[len(found.folder) + 1 :] if found.folder else image.path
                    added[image.path] = LabelledFile(path, label, split, image.size)
                    used.append(table.name)
        if not added:
            return found
        left_out = LeftOut(found.left_out)
        left_out[NO_CLASS_IN_SPLIT] -= len(added)
        examples = left_out.examples.get(NO_CLASS_IN_SPLIT, [])
        left_out.examples[NO_CLASS_IN_SPLIT] = [path for path in examples if path not in added]
        if not left_out[NO_CLASS_IN_SPLIT]:
            del left_out[NO_CLASS_IN_SPLIT]
        return replace(
            found,
            files=tuple(sorted((*found.files, *added.values()), key=lambda file: file.path)),
            left_out=left_out,
            reading=f"{found.reading}; labels in {', '.join(dict.fromkeys(used))}",
        )

    def _by_lists(self, found: Collection) -> Collection:
        """Splits by lists of files beside the class folders, as in Food-101's meta/train.txt."""
        lists = self._lists()
        if not lists or not found.files or any(file.split for file in found.files):
            return found
        split_of: dict[str, Split] = {}
        for file, split in lists.items():
            lines = (self._read(file.path) if self._read else b"").decode(errors="replace")
            named = [line.strip() for line in lines.splitlines() if line.strip()]
            images = [self._listed(line, folder=file.path.rpartition("/")[0]) for line in named]
            paths = [image.path for image in images if image]
            if len(paths) < _ALMOST_ALL * max(len(named), 1):
                return found
            for path in paths:
                if split_of.setdefault(path, split) != split:
                    return found
        kept, left_out = [], LeftOut(found.left_out)
        for labelled_file in found.files:
            whole = _whole(found, path=labelled_file.path)
            if whole in split_of:
                kept.append(replace(labelled_file, split=split_of[whole]))
            else:
                left_out.add(NOT_LISTED, whole)
        arrows = ", ".join(f"{file.path} → {split}" for file, split in lists.items())
        reading = f"{found.reading.removesuffix(', no splits')}; splits by lists: {arrows}"
        return replace(found, files=tuple(kept), left_out=left_out, reading=reading)

    def _lists(self) -> dict[FileEntry, Split]:
        """Text files of one folder that are called after splits, one each."""
        by_folder: dict[str, dict[str, FileEntry]] = defaultdict(dict)
        for file in self._listing.files:
            path = PurePosixPath(file.path)
            if path.suffix.lower() == ".txt" and len(path.parts) <= DEEPEST + 1:
                by_folder[str(path.parent)][path.stem] = file
        for files in by_folder.values():
            splits = recognise_splits(files)
            kinds = Counter(splits.values())
            if kinds["train"] and len(kinds) > 1 and set(kinds.values()) == {1}:
                return {files[stem]: split for stem, split in splits.items()}
        return {}

    def _listed(self, line: str, *, folder: str) -> FileEntry | None:
        for name in (line, line.split()[0]):
            images = self._finder.find(name, folder=folder)
            if len(images) == 1:
                return images[0]
        return None

    def _check_agreement(self, found: Collection, *, table: LabelTable) -> None:
        """Refuse a label file that divides a class folder."""
        by_path = {_whole(found, path=file.path): file for file in found.files}
        labels: dict[str, Counter[str]] = defaultdict(Counter)
        example: dict[tuple[str, str], str] = {}
        for row in table.rows:
            images = self._finder.find(row.path, folder=table.folder)
            if len(images) == 1 and row.label and images[0].path in by_path:
                folder_label = by_path[images[0].path].label
                labels[folder_label][row.label] += 1
                example.setdefault((folder_label, row.label), images[0].path)
        divided = {
            name: counts
            for name, counts in labels.items()
            if len(counts) > 1 or (counts.keys() - {name}) & set(found.classes)
        }
        if divided:
            name, counts = next(iter(divided.items()))
            other = counts.most_common()[-1][0]
            differing = sum(
                c.total() - (c[label] if label in c else max(c.values()) if len(c) > 1 else 0)
                for label, c in divided.items()
            )
            first = counts.most_common()[0][0]
            most = f", though most in {name!r} are {first!r}" if len(counts) > 1 else ""
            raise AmbiguousLayoutError(
                f"{self._source!r}: {table.name!r} says otherwise than the folders about at least "
                f"{differing:,} images, such as {example[name, other]!r}: {other!r}{most}. "
                f"To read the file: --set data.labels={table.name}; to read the "
                "folders: --set data.labels=none."
            )

    def _with_groups(self, found: Collection, *, tables: Sequence[LabelTable]) -> Collection:
        """The same files, with the groups of the files' rows."""
        groups: dict[str, str] = {}
        for table in tables:
            for row in table.rows:
                images = self._finder.find(row.path, folder=table.folder)
                if len(images) == 1 and row.group:
                    groups[images[0].path] = same_text(row.group)
        told = " and ".join(f"column {t.columns['group']!r} of {t.name}" for t in tables)
        return replace(
            found,
            files=tuple(
                replace(file, group=groups.get(_whole(found, path=file.path)) or file.group)
                for file in found.files
            ),
            reading=f"{found.reading}; groups by {told}",
        )


def _may_hold_labels(path: PurePosixPath) -> bool:
    if path.suffix.lower() == ".txt":
        return "annotations" in path.stem.lower()
    if path.suffix.lower() not in LABEL_EXTENSIONS or "submission" in path.stem.lower():
        return False
    return bool(_TELLING.search(path.stem) or split_named(path.stem))


def _whole(found: Collection, *, path: str) -> str:
    """A file's path in the source."""
    return f"{found.folder}/{path}" if found.folder else path


def _inside(found: Collection, *, path: str) -> bool:
    return not found.folder or path.startswith(f"{found.folder}/")


def _split_above(path: str) -> Split | None:
    names: Mapping[str, Split] = recognise_splits(path.split("/")[:-1])
    return next(iter(names.values()), None)


def _extension(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
