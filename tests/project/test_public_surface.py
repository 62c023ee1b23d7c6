"""What users and their programs rely on changes only together with its record."""

from checks.public_surface import TARGET, public_surface


def test_the_public_surface_is_the_recorded_one() -> None:
    # `python -m checks.public_surface` writes it; the diff shows what the change means to users.
    assert public_surface().splitlines() == TARGET.read_text(encoding="utf-8").splitlines()
