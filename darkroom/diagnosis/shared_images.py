"""Validation images that were trained on."""

from darkroom.dataset import Dataset


def shared_images(dataset: Dataset) -> list[tuple[str, str]]:
    """Paths of training and validation images with the same bytes, a pair a validation image.

    What only looks the same, `validate_dataset` reports: it decodes every image anyway.
    """
    trained = {record.sha256: record.path for record in dataset.split("train")}
    return [
        (trained[record.sha256], record.path)
        for record in dataset.split("validation")
        if record.sha256 in trained
    ]
