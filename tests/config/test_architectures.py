"""The list of names agrees with the installed torchvision."""

from darkroom.config.sections import ARCHITECTURES


def test_the_names_are_those_of_the_installed_torchvision() -> None:
    import torchvision

    installed = torchvision.models.list_models(module=torchvision.models)

    assert list(ARCHITECTURES) == sorted(installed)
