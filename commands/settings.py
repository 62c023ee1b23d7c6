"""Which configuration a command goes by: the user's, that of the model's own run, or one made."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from commands.own_images import own_settings, told
from darkroom.config import Config
from darkroom.config.loading import load_config, overridden_keys
from darkroom.progress import Progress
from darkroom.sources.listing import Listing
from stacks.environment import CHECKOUT

DIGITS = CHECKOUT / "configs" / "digits.yaml"
PHOTOGRAPHS = CHECKOUT / "configs" / "photographs.yaml"


@dataclass(frozen=True)
class Settings:
    """A configuration, and where it comes from."""

    config: Config
    origin: str
    told: tuple[str, ...] = ()
    """What was chosen for the user, a line each."""
    chosen: Config = field(default_factory=Config)
    """What it would be, had the user set nothing."""
    listing: Listing | None = None
    """Of the user's folder, where it was looked at."""


def settings_to_train(
    *,
    config: Path | None,
    data: str | None,
    overrides: Sequence[str],
    stack: str,
    progress: Progress | None = None,
) -> Settings:
    """What a training goes by.

    Without a configuration it is that of the digits for the digits alone; for images of the
    user's own, configs/photographs.yaml with what suits them.

    Args:
        progress: where what has to be fetched before it can be looked at is shown; None:
            nothing is fetched.

    Raises:
        UserError: with every problem of the configuration.
    """
    if config is not None:
        return Settings(load_config(config, overrides=overrides, data=data), str(config))
    given = overridden_keys(overrides)
    if data is None and not any(key in ("data", "data.source") for key in given):
        return _of_digits(overrides, data=data)
    plain = load_config(PHOTOGRAPHS, overrides=overrides, data=data)
    if plain.data.source == "digits":
        return _of_digits(overrides, data=data)
    chosen, listing = own_settings(
        plain.data.source, config=plain, given=given, stack=stack, progress=progress
    )
    made = [setting.override for setting in chosen]
    return Settings(
        load_config(PHOTOGRAPHS, overrides=[*made, *overrides], data=data),
        origin=f"{PHOTOGRAPHS}, fitted to the images",
        told=tuple(told(chosen)),
        chosen=load_config(PHOTOGRAPHS, overrides=made, data=data),
        listing=listing,
    )


def _of_digits(overrides: Sequence[str], *, data: str | None) -> Settings:
    config = load_config(DIGITS, overrides=overrides, data=data)
    return Settings(config, str(DIGITS), chosen=load_config(DIGITS))
