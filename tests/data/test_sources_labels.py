"""Classes, splits and groups by files: Kaggle's, Hugging Face's, and those of people."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from checkout import PHOTOGRAPHS
from darkroom.backends.storage.ingestion import describe_source, ingest, source_version
from darkroom.base.errors import UserError
from darkroom.config.loader import load_config
from darkroom.data.image_folder import AmbiguousLayoutError
from darkroom.data.label_files import MISSING, NO_LABEL, NO_ROW
from darkroom.data.labels import Collection
from darkroom.data.layout import NOT_LISTED, read_labelled
from darkroom.data.listing import list_folder
from darkroom.validation import check_classes
from old_zips import zip_in

SHARED = PHOTOGRAPHS
Read = Callable[..., Collection]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """A source of these images and texts, read."""

    def read_source(
        *images: str, settings: tuple[str, ...] = (), **files: str | bytes
    ) -> Collection:
        write(tmp_path, *images, files=files)
        return read_labelled(
            list_folder(tmp_path, maximum_files=1000),
            config=load_config(None, overrides=settings).data,
            source="images",
            read=lambda path: (tmp_path / path).read_bytes(),
        )

    return read_source


def write(root: Path, *images: str, files: dict[str, str | bytes]) -> None:
    for path in images:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def labels(found: Collection) -> dict[str, str]:
    return {file.path: file.label for file in found.files}


IDS = tuple(f"train/id{number}.jpg" for number in range(4))


@pytest.mark.parametrize(
    "content",
    [
        "id,breed\nid0,pug\nid1,beagle\nid2,pug\nid3,beagle\n",
        "\ufeffid;breed\r\nid0;pug\r\nid1;beagle\r\nid2;pug\r\nid3;beagle\r\n",
        "id\tbreed\rid0\tpug\rid1\tbeagle\rid2\tpug\rid3\tbeagle",
        'breed,id\n"pug","id0"\n"beagle",id1\npug, id2\nbeagle,"id3"\n\n,\n',
        "filename,label,x\nid0.jpg,pug,\ntrain/id1.jpg,beagle,1\n./train/id2.jpg,pug,\nid3,beagle,\n",
        "path,species\n/kaggle/input/dogs/train/id0.jpg,pug\n../train/id1,beagle\n"
        "train\\id2.jpg,pug\nid3.JPG,beagle\n",
        "id0.jpg pug\nid1.jpg beagle\nid2.jpg pug\nid3.jpg beagle\n",
    ],
    ids=["kaggle", "bom, semicolons, crlf", "tabs, cr", "quotes", "paths", "foreign", "no header"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_of_all_kinds_are_read(read, content, encoding):
    found = read(*IDS, "test/unknown.jpg", labels_DOT_csv=content.encode(encoding))
    assert labels(found) == dict(zip(IDS, ["pug", "beagle"] * 2, strict=True))
    assert found.left_out[NO_ROW] == 1
    assert found.left_out.examples[NO_ROW] == ["test/unknown.jpg"]
    assert {file.split for file in found.files} == {None}
    assert found.reading.startswith("labels in labels.csv (path ")


def test_hugging_faces_metadata_of_each_split(read):
    found = read(
        *("train/0.png", "train/1.png", "test/0.png"),
        train__metadata_DOT_csv='file_name,label,text\n0.png,cat,"a, b"\n1.png,dog,\n',
        test__metadata_DOT_csv="file_name,label,text\n0.png,dog,x\n",
    )
    assert labels(found) == {"train/0.png": "cat", "train/1.png": "dog", "test/0.png": "dog"}
    assert {file.path: file.split for file in found.files} == {
        "train/0.png": "train",
        "train/1.png": "train",
        "test/0.png": "test",
    }


def test_labels_that_are_numbers_stay_what_was_written(read):
    written = {"a": "7", "b": "7.50", "c": '"007"', "d": "1e3", "e": "true"}
    lines = [f'{{"file_name": "{name}.png", "label": {text}}}' for name, text in written.items()]
    images = [f"data/{name}.png" for name in written]
    found = read(*images, data__metadata_DOT_jsonl="\n".join(lines))
    assert [*labels(found).values()] == ["7", "7.50", "007", "1e3", "true"]


def test_a_table_of_a_usual_name_that_is_damaged_is_told_where_the_folders_say_nothing(read):
    with pytest.raises(UserError, match=r"metadata.jsonl', line 2: no JSON"):
        read("data/a.png", data__metadata_DOT_jsonl='{"file_name": "a.png", "label": 1}\n{"x": 07}')


def test_groups_and_splits_are_columns_too(read):
    found = read(
        *(f"images/{number}.jpg" for number in range(4)),
        data_DOT_csv="image,class,set,person\n0,a,Train,ann\n1,b,Train,\n2,a,Testing,bob\n3,b,VAL,cat\n",
        settings=("data.labels=data.csv",),
    )
    assert [(file.split, file.group) for file in found.files] == [
        ("train", "ann"),
        ("train", None),
        ("test", "bob"),
        ("validation", "cat"),
    ]
    assert found.reading == (
        "labels in data.csv (path 'image', label 'class', split 'set', group 'person'); "
        "splits by column 'set'"
    )


def test_columns_are_named_by_the_configuration(read):
    settings = (
        "data.labels=table.csv",
        "data.label_columns={path: Foto, label: Sorte, split: Teil}",
        "data.group=Ort",
        "data.splits={train: ['1', '2'], test: '3'}",
    )
    content = "Sorte;Teil;Foto;Ort\na;1;x;Ulm\nb;2;y;Ulm\na;3;z;Bonn\n"
    found = read("x.jpg", "y.jpg", "z.jpg", table_DOT_csv=content, settings=settings)
    assert [(f.label, f.split, f.group) for f in found.files] == [
        ("a", "train", "Ulm"),
        ("b", "train", "Ulm"),
        ("a", "test", "Bonn"),
    ]


def test_rows_and_images_without_each_other_are_counted_and_named(read):
    content = "id,label\na,cat\nb,dog\nc,dog\nd,\n"
    found = read("a.jpg", "b.jpg", "d.jpg", "e.jpg", labels_DOT_csv=content)
    assert labels(found) == {"a.jpg": "cat", "b.jpg": "dog"}
    assert {r: found.left_out[r] for r in (MISSING, NO_LABEL, NO_ROW)} == {
        MISSING: 1,
        NO_LABEL: 1,
        NO_ROW: 1,
    }
    assert found.left_out.examples[MISSING] == ["c (labels.csv, line 4)"]
    assert found.lost == {"dog": 1}


def test_a_row_given_twice_is_no_harm_unless_it_contradicts_itself(read):
    same = "id,label\na,cat\nb,dog\na.jpg,cat\n"
    assert len(read("a.jpg", "b.jpg", labels_DOT_csv=same).files) == 2
    with pytest.raises(UserError, match=r"line 4: 'a.jpg' has the class 'dog' after 'cat'"):
        read(
            labels_DOT_csv=same.replace("a.jpg,cat", "a.jpg,dog"),
            settings=("data.labels=labels.csv",),
        )


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("", (), "is empty"),
        (b"id,label\na,caf\xe9\n", (), "no text in UTF-8 .* at byte 14"),
        ('id,label\n"a,cat\nb,dog\n', (), "line 3: unexpected end of data. Mend the quotes"),
        ("id,label\na,cat,spotted\n", (), "lines '2' have more cells than the header, 2"),
        ("id,label\n,cat\n", (), "lines '2' name no image"),
        ("x,y,z\n1,2,3\n", (), r"\('x', 'y', 'z'\) is known to hold the path"),
        ("id,y,z\na,2,3\n", (), "known to hold the class"),
        ("id,label\na,x\n", ("data.group=persn",), "no column 'persn'; it has 'id', 'label'"),
        ("id,label,split\na,x,train\nb,y,fold 2\n", (), r"'fold 2', which are no known splits"),
        ("id,label\nsame,x\n", (), "'same' may be 'p/same.jpg', 'q/same.jpg'; write its path"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_file_and_line(read, content, settings, message):
    with pytest.raises(UserError, match=message):
        read(
            *("a.jpg", "b.jpg", "p/same.jpg", "q/same.jpg"),
            labels_DOT_csv=content,
            settings=("data.labels=labels.csv", *settings),
        )


@pytest.mark.parametrize(
    "content",
    [
        "a.jpg cat\nb.jpg golden retriever\nc.jpg golden eagle\n",
        "a.jpg golden retriever\nb.jpg golden eagle\nc.jpg cat\n",
        "file label\na.jpg golden retriever\nb.jpg golden eagle\n",
    ],
)
def test_classes_of_several_words_are_not_cut_where_spaces_part_the_cells(read, content):
    with pytest.raises(UserError, match="commas or tabs"):
        read(
            "a.jpg", "b.jpg", "c.jpg", labels_DOT_txt=content, settings=("data.labels=labels.txt",)
        )


@pytest.mark.parametrize("column", ["partition", "split"])
def test_a_split_column_of_unknown_values_is_refused_not_ignored(read, column):
    table = f"image_id,label,{column}\na.jpg,x,0\nb.jpg,y,0\nc.jpg,x,1\nd.jpg,y,2\n"
    images = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    with pytest.raises(UserError, match=r"values '0', '1', '2', which are no known splits"):
        read(*images, labels_DOT_csv=table)
    told = ("data.labels=labels.csv", "data.splits={train: ['0'], validation: ['1'], test: ['2']}")
    found = read(*images, labels_DOT_csv=table, settings=told)
    assert [file.split for file in found.files] == ["train", "train", "validation", "test"]


def test_a_column_that_may_hold_splits_and_does_not_is_told(read):
    table = "image_id,dx,dataset\na.jpg,x,vienna\nb.jpg,y,sydney\n"
    found = read("a.jpg", "b.jpg", metadata_DOT_csv=table)
    assert found.reading.endswith("its values are no splits, so they are made")


def test_images_without_a_split_among_those_with_one_are_told(read):
    table = "file,label,split\na.jpg,x,train\nb.jpg,y,\nc.jpg,x,test\n"
    found = read("a.jpg", "b.jpg", "c.jpg", labels_DOT_csv=table)
    assert found.reading.endswith("column 'split', empty for 1 images, which count as train")


def test_a_label_file_without_splits_beside_one_with_them_is_refused(read):
    tables = {
        "a_DOT_csv": "file,label,split\na.jpg,x,train\nb.jpg,y,train\nc.jpg,x,validation\n",
        "test_DOT_csv": "file,label\nd.jpg,y\n",
    }
    with pytest.raises(UserError, match=r"'a.csv' has the column 'split' .* 'test.csv' has none"):
        read(
            "a.jpg",
            "b.jpg",
            "c.jpg",
            "d.jpg",
            settings=("data.labels=[a.csv, test.csv]",),
            **tables,
        )


@pytest.mark.parametrize(
    "rows",
    [
        "/d/cats/1.jpg,cat\n/d/cats/2.jpg,cat\n/d/dogs/3.jpg,dog",
        "../x/cats/1.jpg,cat\n../x/cats/2.jpg,cat\n../x/dogs/3.jpg,dog",
    ],
)
def test_a_row_whose_image_is_missing_is_not_given_to_its_namesake(read, rows):
    images = ("cats/1.jpg", "dogs/2.jpg", "dogs/3.jpg")
    settings = ("data.labels=labels.csv",)
    found = read(*images, labels_DOT_csv=f"path,label\n{rows}\n", settings=settings)
    assert labels(found) == {"cats/1.jpg": "cat", "dogs/3.jpg": "dog"}
    assert found.left_out[MISSING] == 1


def test_metadata_of_a_split_speaks_of_its_images_alone(read):
    tables = {
        "train__metadata_DOT_csv": "file_name,label\n1.jpg,a\n2.jpg,b\n3.jpg,a\n",
        "test__metadata_DOT_csv": "file_name,label\n1.jpg,b\n2.jpg,a\n",
    }
    images = [f"{split}/images/{n}.jpg" for split in ("test", "train") for n in (1, 2)]
    found = read(*images, "test/images/3.jpg", **tables)
    assert labels(found) == dict(zip(images, "baab", strict=True))
    assert found.left_out[MISSING] == found.left_out[NO_ROW] == 1


@pytest.mark.parametrize("swapped", ["dog dog cat cat", "cat cat cat cat"])
def test_a_file_that_calls_a_class_folder_by_anothers_name_is_refused(read, swapped):
    images = ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "dog/4.jpg")
    rows = "".join(f"{i},{label}\n" for i, label in zip(images, swapped.split(), strict=True))
    with pytest.raises(AmbiguousLayoutError, match=r"data.labels=labels.csv"):
        read(*images, labels_DOT_csv=f"path,label\n{rows}")


def test_the_column_of_file_names_counts_not_that_of_numbers(read):
    table = "id,photo,label\n2,1.jpg,a\n1,2.jpg,b\n"
    assert labels(read("1.jpg", "2.jpg", labels_DOT_csv=table)) == {"1.jpg": "a", "2.jpg": "b"}


def test_a_line_separator_of_unicode_ends_no_line_of_json(read):
    lines = '{"file_name": "a.jpg", "label": "x", "note": "1\u20282\x853"}\n'
    lines += '{"file_name": "b.jpg", "label": "y"}'
    assert labels(read("a.jpg", "b.jpg", metadata_DOT_jsonl=lines)) == {"a.jpg": "x", "b.jpg": "y"}


def test_a_row_given_twice_in_two_forms_of_unicode_does_not_contradict_itself(read):
    table = "file,label\n\u00e9.jpg,caf\u00e9\ne\u0301.jpg,cafe\u0301\nb.jpg,d\n"
    assert set(labels(read("\u00e9.jpg", "b.jpg", labels_DOT_csv=table)).values()) == {
        "caf\u00e9",
        "d",
    }


def test_a_label_file_that_is_nowhere_is_refused(read):
    with pytest.raises(UserError, match=r"neither of 'images' nor of this machine.*'other.csv'"):
        read("a.jpg", other_DOT_csv="x", settings=("data.labels=labels.csv",))
    with pytest.raises(UserError, match="no known label file with that column"):
        read("a.jpg", settings=("data.group=person",))


def test_a_file_that_contradicts_the_folders_is_refused_and_says_how_to_choose(read):
    images = [f"{label}/{number}.jpg" for label in "ab" for number in range(3)]
    content = "path,label\n" + "".join(f"{path},{path[0]}\n" for path in images)
    assert labels(read(*images, labels_DOT_csv=content)) == {path: path[0] for path in images}
    with pytest.raises(AmbiguousLayoutError, match=r"data.labels=labels.csv; .*data.labels=none"):
        read(labels_DOT_csv=content.replace("a/1.jpg,a", "a/1.jpg,b"))
    by_file = read(settings=("data.labels=labels.csv",))
    assert labels(by_file)["a/1.jpg"] == "b"
    assert labels(read(settings=("data.labels=none",)))["a/1.jpg"] == "a"


def test_parts_of_a_collection_are_read_by_their_table_and_its_groups(read):
    images = [f"HAM10000_images_part_{1 + n % 2}/ISIC_{n}.jpg" for n in range(4)]
    rows = "".join(f"HAM_{n // 2},ISIC_{n},{'nv' if n < 2 else 'mel'}\n" for n in range(4))
    found = read(*images, HAM10000_metadata_DOT_csv="lesion_id,image_id,dx\n" + rows)
    assert found.classes == ("mel", "nv")
    assert {file.group for file in found.files} == {"HAM_0", "HAM_1"}


def test_images_of_a_split_without_class_folders_get_theirs_from_a_file(read):
    images = [f"t/train/n0{c}/images/n0{c}_{n}.JPEG" for c in (1, 2) for n in range(2)]
    annotations = "val_0.JPEG\tn01\t0\t32\nval_1.JPEG\tn02\t0\t32\n"
    found = read(
        *(
            *images,
            "t/val/images/val_0.JPEG",
            "t/val/images/val_1.JPEG",
            "t/test/images/test_0.JPEG",
        ),
        t__val__val_annotations_DOT_txt=annotations,
    )
    assert {f.path: (f.label, f.split) for f in found.files if f.split != "train"} == {
        "val/images/val_0.JPEG": ("n01", "validation"),
        "val/images/val_1.JPEG": ("n02", "validation"),
    }
    assert sum(found.left_out.values()) == 2


def test_lists_of_the_splits_count(read):
    images = [f"food/images/{c}/{n}.jpg" for c in ("pie", "cake") for n in range(4)]
    lines = {n: f"pie/{n}\ncake/{n}\n" for n in range(3)}
    found = read(
        *images,
        food__meta__train_DOT_txt=lines[0] + lines[1],
        food__meta__test_DOT_txt=lines[2],
    )
    assert {f.path: f.split for f in found.files if f.label == "pie"} == {
        "pie/0.jpg": "train",
        "pie/1.jpg": "train",
        "pie/2.jpg": "test",
    }
    assert found.left_out[NOT_LISTED] == 2


def test_groups_come_from_a_file_that_names_no_classes(read):
    images = [f"{label}/{number}.jpg" for label in "ab" for number in range(2)]
    rows = "".join(f"{path},p{path[2]}\n" for path in images)
    found = read(
        *images, people_DOT_csv="file,person\n" + rows, settings=("data.labels=people.csv",)
    )
    assert labels(found) == {path: path[0] for path in images}
    assert {file.group for file in found.files} == {"p0", "p1"}


def test_the_forms_of_a_name_in_unicode_are_one_in_label_files_too(read, tmp_path):
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    content = f"path,label\n{nfc}.jpg,{nfd}\nx/b.jpg,{nfc}\nc,other\n"
    found = read(f"{nfd}.jpg", "x/b.jpg", "c.jpg", labels_DOT_csv=content)
    assert found.classes == (nfc, "other")
    assert all((tmp_path / file.path).is_file() for file in found.files)
    assert MISSING not in found.left_out


def test_a_table_in_an_archive_is_read_before_it_is_unpacked(tmp_path):
    root = tmp_path / "dogs"
    content = "id,breed,patient\n" + "".join(
        f"{n},{'pug' if n % 2 else 'fox'},{n // 4}\n" for n in range(24)
    )
    write(root, *(f"train/{n}.jpg" for n in range(24)), files={"labels_DOT_csv": content})
    with tarfile.open(tmp_path / "dogs.tgz", "w:gz") as archive:
        archive.add(root, arcname="dogs")
    config = load_config(None).data
    for source in (root, tmp_path / "dogs.tgz"):
        foreseen = describe_source(str(source), config=config, seed=3)
        dataset = ingest(str(source), config=config, seed=3, store=tmp_path / "store")
        assert foreseen.dataset is not None
        assert foreseen.dataset.counts() == dataset.counts()
        assert foreseen.dataset.left_out == dataset.left_out
        assert dataset.classes == ("fox", "pug")
        splits_of = {record.group: record.split for record in dataset.records}
        assert all(splits_of[record.group] == record.split for record in dataset.records)


def test_a_table_in_a_zip_is_read_by_the_encoding_that_is_given(tmp_path):
    pictures = {f"帽子/{n}.jpg": b"x" for n in range(4)}
    table = "file,label\n" + "".join(f"{name},{'ab'[n % 2]}\n" for n, name in enumerate(pictures))
    archive = zip_in("cp932", tmp_path / "x.zip", {**pictures, "帽子/labels.csv": table.encode()})
    settings = ["data.zip_encoding=cp932", "data.labels=帽子/labels.csv"]
    config = load_config(None, overrides=settings).data
    foreseen = describe_source(str(archive), config=config, seed=3)
    assert foreseen.dataset is not None
    assert foreseen.dataset.classes == ("a", "b")


def test_a_label_file_beside_the_source_is_part_of_its_version(tmp_path):
    write(tmp_path / "images", *(f"{n}.jpg" for n in range(4)), files={})
    table = tmp_path / "labels.csv"
    config = load_config(None, overrides=[f"data.labels={table}"]).data
    versions = set()
    for last in ("cat", "dog"):
        table.write_text(f"id,label\n0,cat\n1,dog\n2,cat\n3,{last}\n")
        versions.add(source_version(str(tmp_path / "images"), config=config))
    assert len(versions) == 2


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_most_validation_photographs_of_clothing_show_people_who_are_in_train():
    people = [f"data.labels={SHARED / 'clothing-people.csv'}", "data.group=person"]
    config = load_config(None, overrides=people).data
    found = describe_source(str(SHARED / "clothing-small.tar"), config=config, seed=1)
    assert found.dataset is not None
    findings = {f.kind: f for f in check_classes(found.dataset, config=config)}
    message = findings["groups_across_splits"].message
    assert message.startswith("332 of 341 validation images show one of ")  # none of the test's

    made = load_config(None, overrides=[*people, "data.splits.train=[train, validation]"]).data
    dataset = describe_source(str(SHARED / "clothing-small.tar"), config=made, seed=1).dataset
    assert dataset is not None
    kinds = {finding.kind for finding in check_classes(dataset, config=made)}
    assert "groups_across_splits" not in kinds
    counts = dataset.counts()
    for name in dataset.classes:
        total = sum(counts[split][name] for split in counts)
        assert counts["test"][name] / total == pytest.approx(0.15, abs=0.02)
