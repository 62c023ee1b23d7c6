"""Loading a bundle, and predicting with it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.base.errors import DarkroomError, UserError
from darkroom.batch.prediction import predict_sources
from darkroom.images import ImageError
from darkroom.models.bundle import ONNX_FILE, pack
from darkroom.models.prediction import Prediction, Predictor, softmax
from pictures import write_image_folder
from small_bundles import CLASSES, rewrite_digests, write_small_bundle


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.load(write_small_bundle(tmp_path / "bundle"), threads=1)


def colour(path: Path, name: str, *, size: tuple[int, int] = (20, 24)) -> Path:
    Image.new("RGB", size, name).save(path)
    return path


def test_images_are_predicted_in_order_over_several_batches(
    predictor: Predictor, tmp_path: Path
) -> None:
    names = ["red", "lime", "blue", "blue", "red"]
    files = [colour(tmp_path / f"{i}.png", name) for i, name in enumerate(names)]
    probabilities = predictor.predict(files, batch_size=2)
    assert probabilities.shape == (5, 3)
    assert probabilities.dtype == np.float32
    assert [CLASSES[i] for i in probabilities.argmax(axis=1)] == [
        "red", "green", "blue", "blue", "red",
    ]  # fmt: skip
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_bytes_and_files_give_the_same_probabilities(predictor: Predictor, tmp_path: Path) -> None:
    file = colour(tmp_path / "a.png", "red")
    by_file, by_bytes = predictor.predict([file, file.read_bytes()])
    np.testing.assert_array_equal(by_file, by_bytes)


def test_no_images_give_no_rows(predictor: Predictor) -> None:
    assert predictor.predict([]).shape == (0, 3)


def test_an_archive_predicts_as_its_folder_does(predictor: Predictor, tmp_path: Path) -> None:
    pack(tmp_path / "bundle", tmp_path / "model.tar.gz")
    packed = Predictor.load(tmp_path / "model.tar.gz", threads=1)
    image = colour(tmp_path / "a.png", "teal")
    np.testing.assert_array_equal(packed.predict([image]), predictor.predict([image]))


def test_a_bad_image_is_named(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    good = colour(tmp_path / "a.png", "red")
    with pytest.raises(ImageError, match=r"notes\.jpg.*not an image"):
        predictor.predict([good, tmp_path / "notes.jpg"])


def test_top_k_is_ordered_and_never_longer_than_the_classes(predictor: Predictor) -> None:
    best = predictor.top_k(np.array([0.2, 0.7, 0.1], dtype=np.float32), k=10)
    assert [item.class_name for item in best] == ["green", "blue", "red"]
    assert best[0].model_dump() == {"class": "green", "probability": pytest.approx(0.7)}


def test_softmax_stands_huge_logits() -> None:
    probabilities = softmax(np.array([[1e4, 0, -1e4], [3, 3, 3]], dtype=np.float32))
    np.testing.assert_allclose(probabilities, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_output_that_is_not_finite_is_an_error(predictor: Predictor) -> None:
    batch = np.full((1, 3, 16, 16), np.nan, dtype=np.float32)
    with pytest.raises(DarkroomError, match="not finite"):
        predictor.probabilities(batch)


def test_a_network_that_does_not_fit_its_classes_is_refused(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", outputs=4)
    with pytest.raises(UserError, match="3 classes"):
        Predictor.load(bundle)


def test_a_network_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    (bundle / ONNX_FILE).write_bytes(b"something else")
    rewrite_digests(bundle)
    with pytest.raises(UserError, match="cannot load"):
        Predictor.load(bundle)


def test_predicting_imports_no_torch(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle")
    image = colour(tmp_path / "a.png", "red")
    program = (
        "import sys; from pathlib import Path\n"
        "from darkroom.models.prediction import Predictor\n"
        "from darkroom.batch.prediction import predict_sources\n"
        f"predictor = Predictor.load(Path({str(bundle)!r}))\n"
        f"rows = predict_sources([{str(image)!r}], predictor=predictor)\n"
        "assert rows[0].class_name == 'red', rows\n"
        "heavy = {'torch', 'torchvision', 'zenml', 'mlflow', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folder_is_walked_in_order_without_hidden_files(
    predictor: Predictor, tmp_path: Path
) -> None:
    root = write_image_folder(tmp_path / "pictures", per_class=1)
    (root / ".hidden").mkdir()
    colour(root / ".hidden" / "a.png", "red")
    colour(root / "._b.png", "red")
    (root / "notes.txt").write_text("about the pictures")
    rows = predict_sources([str(root)], predictor=predictor)
    assert [Path(row.source).parent.name for row in rows] == ["blue", "green", "red"]
    assert all(row.error is None for row in rows)


def test_each_bad_source_is_a_row_and_the_others_are_predicted(
    predictor: Predictor, tmp_path: Path
) -> None:
    whole = colour(tmp_path / "whole.jpg", "red", size=(200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    names = ["missing.png", "cut.jpg", "text.png", "empty", "whole.jpg"]
    rows = predict_sources([str(tmp_path / name) for name in names], predictor=predictor)
    assert [Path(row.source).name for row in rows] == names
    words = ["no such file", "broken image", "not an image", "holds no images"]
    for row, word in zip(rows, words, strict=False):
        assert word in (row.error or "")
        assert row.class_name is None
    assert rows[-1].class_name == "red"


def test_the_json_of_a_row_is_the_documented_one(predictor: Predictor, tmp_path: Path) -> None:
    image = colour(tmp_path / "a.png", "red")
    (row,) = predict_sources([str(image)], predictor=predictor, top_k=2)
    content = row.model_dump()
    assert list(content) == ["source", "class", "probability", "top_k", "error"]
    assert [list(item) for item in content["top_k"]] == [["class", "probability"]] * 2
    read = Prediction.model_validate_json(row.model_dump_json())
    assert read == row.model_copy(update={"engine": None})  # the server's answers name it
