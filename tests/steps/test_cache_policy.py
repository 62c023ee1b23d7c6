from checkout import CHECKOUT
from steps.cache_policy import depends_on, imported_files


def names(module: str) -> set[str]:
    return {path.name for path in imported_files(module)}


def test_a_policy_covers_what_a_module_imports_directly_and_indirectly() -> None:
    assert {"dataset.py", "bundle.py", "images.py", "errors.py"} <= names(
        "darkroom.models.bundle"
    ) | names("darkroom.data.dataset")
    assert "errors.py" in names("darkroom.images")


def test_a_policy_leaves_out_what_a_module_does_not_import() -> None:
    def reaches_the_server(module: str) -> bool:
        return any("serving" in path.parts for path in imported_files(module))

    assert reaches_the_server("darkroom.serving.app")
    assert not reaches_the_server("darkroom.data.dataset")


def test_the_lock_file_counts_since_another_torch_computes_other_numbers() -> None:
    assert "requirements.lock" in (depends_on("darkroom.base.errors").file_dependencies or [])


def test_folders_count_with_every_file_in_them() -> None:
    files = (
        depends_on("darkroom.base.errors", files=("darkroom/templates",)).file_dependencies or []
    )
    assert "darkroom/templates/base.html.j2" in files


def test_all_dependencies_exist() -> None:
    files = (
        depends_on("darkroom.training.loop", "darkroom.evaluation.evaluate").file_dependencies or []
    )
    assert len(files) > 5
    assert all((CHECKOUT / file).is_file() for file in files)
