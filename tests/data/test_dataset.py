import json
from dataclasses import replace
from pathlib import Path

import pytest

from darkroom.data.dataset import Dataset, ImageRecord, Provenance, make_dataset

RECORDS = [
    ImageRecord("b/2.png", "b", "test", 10, "22"),
    ImageRecord("a/1.png", "a", "train", 10, "11"),
    ImageRecord("b/3.png", "b", "train", 10, "33"),
]


def dataset(records: list[ImageRecord] = RECORDS, root: Path = Path("/data")) -> Dataset:
    return make_dataset(records, root=root, source="test")


def test_records_are_in_one_order_whatever_order_they_came_in() -> None:
    assert dataset(RECORDS[::-1]) == dataset()
    assert [record.path for record in dataset().records] == ["a/1.png", "b/3.png", "b/2.png"]


def test_the_fingerprint_does_not_depend_on_where_the_files_lie() -> None:
    assert dataset(root=Path("/elsewhere")).fingerprint == dataset().fingerprint


def test_the_fingerprint_changes_with_content_label_split_and_path() -> None:
    first = RECORDS[0]
    changed = [
        replace(first, sha256="99"),
        replace(first, label="c"),
        replace(first, split="train"),
        replace(first, path="b/9.png"),
    ]
    prints = {dataset([record, *RECORDS[1:]]).fingerprint for record in [first, *changed]}
    assert len(prints) == 5


def test_a_manifest_survives_being_written_and_read() -> None:
    original = dataset().without(["b/2.png"], reason="broken")
    assert Dataset.from_json(original.to_json()) == original


def test_a_manifest_keeps_groups_and_how_the_source_was_read() -> None:
    records = [replace(record, group=f"person {record.sha256}") for record in RECORDS]
    told = Provenance("splits: a → train", {"broken": ("a/9.png",)}, {"a": 1})
    original = make_dataset(records, root=Path("/data"), source="test", provenance=told)
    assert Dataset.from_json(original.to_json()) == original
    assert original.fingerprint == dataset().fingerprint


def test_where_a_data_set_is_published_is_kept_and_no_part_of_its_fingerprint() -> None:
    published = replace(dataset(), shards="s3://bucket/datasets/1")
    assert Dataset.from_json(published.to_json()) == published
    assert published.fingerprint == dataset().fingerprint


@pytest.mark.parametrize("change", [('["a", "b"]', '["b", "a"]'), (", 1]]", ", 7]]")])
def test_a_manifest_in_which_anything_was_changed_is_refused(change: tuple[str, str]) -> None:
    written = dataset().without(["b/2.png"], reason="broken").to_json()
    assert change[0] in written
    with pytest.raises(ValueError, match="not what was written"):
        Dataset.from_json(written.replace(*change))


def test_a_manifest_of_earlier_times_is_read() -> None:
    content = json.loads(dataset().to_json())
    del content["shards"], content["provenance"]
    content.pop("digest")
    assert Dataset.from_json(json.dumps(content)) == dataset()


def test_counts_name_every_class_in_each_split() -> None:
    assert dataset().counts() == {
        "train": {"a": 1, "b": 1},
        "validation": {"a": 0, "b": 0},
        "test": {"a": 0, "b": 1},
    }


def test_what_is_left_out_is_counted_with_its_reason() -> None:
    smaller = dataset().without(["b/2.png", "absent.png"], reason="truncated")
    assert smaller.left_out == (("truncated", 1),)
    assert smaller.provenance.examples == {"truncated": ("b/2.png",)}
    assert len(smaller.records) == 2
