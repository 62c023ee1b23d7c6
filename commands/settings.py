"""Which configuration a command goes by: the user's, that of the model's own run, or one made."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median

from PIL import Image

from commands.source_name import own_name
from darkroom.base.errors import DarkroomError
from darkroom.base.files import workspace
from darkroom.base.progress import Progress
from darkroom.config import Config
from darkroom.config.loader import load_config, overridden_keys
from darkroom.data.listing import Listing
from darkroom.data.source_names import Source, parse_source
from darkroom.images import open_image
from stacks.environment import CHECKOUT

# --- own images ---
# Settings for people's own images, where nobody wrote a configuration: found out, and told.
#
# Each is an override of configs/photographs.yaml with a reason; what the user sets wins.

_SAMPLED = 48
_SAMPLED_REMOTELY = 8
_LOOKED_AT_FOR_COLOUR = 12
_SMALL_SIDE = 48
"""Below it, pictures are icons or signs: neither cropped, mirrored nor like ImageNet's."""
_MIDDLE_SIDE = 224
_TRAINED_SHARE = 0.7
_BATCHES_AN_EPOCH = 4
_FALLBACK_SIDE = 224


@dataclass(frozen=True)
class Setting:
    """One value, and why."""

    key: str
    value: str
    """In YAML."""
    reason: str

    @property
    def override(self) -> str:
        """As --set takes it."""
        return f"{self.key}={self.value}"


_FROM_SCRATCH = (
    Setting("training.learning_rate", "2e-3", "from scratch"),
    Setting(
        "tuning.search_space.learning_rate", "{low: 5e-4, high: 5e-3, log: true}", "from scratch"
    ),
)


@dataclass(frozen=True)
class _Looked:
    """What a sample of the images shows."""

    sides: tuple[int, ...]
    """Shorter sides in pixels."""
    is_grey: bool
    total: int | None
    """Images in the whole source; None: unknown."""
    listing: Listing | None = None
    """Of a folder that can be trained on."""


def own_settings(
    source: str, *, config: Config, given: Iterable[str], stack: str, progress: Progress | None
) -> tuple[list[Setting], Listing | None]:
    """What suits the images of a source.

    Args:
        config: with what the user has set.
        given: keys that the user has set, and that stay as they are.
        progress: fetch what has to be fetched anyway, and show it; None: fetch nothing.

    Returns:
        Settings, and what a folder of the user's holds, which takes minutes to find out where it
        is large.
    """
    given = set(given)
    parsed = parse_source(source)
    if parsed.kind == "path" and not Path(parsed.location).expanduser().exists():
        # That there is none is told with all other problems, of which missing weights are none.
        why = "not looked for: there are no images"
        unasked = [Setting("model.weights", "none", why)]
        return [setting for setting in unasked if setting.key not in given], None
    looked = _look(parsed, config=config, fetch=stack == "local", progress=progress)
    name = own_name(parsed.public_name)
    found = [
        Setting("tracking.experiment", name, "after the source"),
        Setting("tracking.model_name", name, "after the source"),
        *_by_size(looked, stack=stack, config=config),
        *_batches(looked),
    ]
    wanted = {setting.key for setting in found}
    if looked is None and _is_folder(parsed):  # refused sooner without the import of torch
        why = "not looked for: the images cannot be trained on"
        found += [Setting("model.weights", "none", why)]
    elif not given & {"model.weights", "model.architecture"} and "model.weights" not in wanted:
        found += _weights(config, stack=stack)
    if "model.image_size" in given:
        found = [setting for setting in found if setting.key != "model.resize_size"]
    found = [
        setting
        for setting in found
        if f"{setting.key}.choices" not in given
        and not any(setting.key == key or setting.key.startswith(f"{key}.") for key in given)
    ]
    return found, looked.listing if looked and _is_folder(parsed) else None


def _by_size(looked: _Looked | None, *, stack: str, config: Config) -> list[Setting]:
    """Size and augmentation."""
    if looked is None:
        why = "no image could be looked at before the start, so the usual size of photographs"
        return [Setting("model.image_size", str(_FALLBACK_SIDE), why)]
    side = round(median(looked.sides))
    seen = f"the shorter side is {side} px (median of {len(looked.sides)} images)"
    if side < _SMALL_SIDE:
        size = str(max(32, -(-side // 8) * 8))
        return [
            Setting("model.image_size", size, seen),
            Setting("model.resize_size", size, "nothing is cut off pictures so small"),
            Setting("model.weights", "none", "ImageNet's do not know pictures so small"),
            Setting("training.augmentation", "none", "too few pixels to crop"),
            *_FROM_SCRATCH,
        ]
    if side < _MIDDLE_SIDE:
        sized = Setting("model.image_size", str(max(64, side // 32 * 32)), seen)
    elif _has_gpu(config, stack=stack):
        sized = Setting("model.image_size", str(_MIDDLE_SIDE), seen)
    else:
        sized = Setting("model.image_size", "128", f"{seen}; without a GPU, 224 would take long")
    if looked.is_grey:
        why = "grey pictures, such as X-rays, may have a left and a right"
        return [sized, Setting("training.augmentation", "crop", why)]
    return [sized, Setting("training.augmentation", "crop_flip", "photographs in colour")]


def _batches(looked: _Looked | None) -> list[Setting]:
    """Sizes that leave a few steps to each epoch of a small data set."""
    if looked is None or looked.total is None:
        return []
    most = max(2, int(looked.total * _TRAINED_SHARE / _BATCHES_AN_EPOCH))
    if most >= 64:
        return []
    largest = 1 << (most.bit_length() - 1)
    choices = [size for size in (largest // 2, largest) if size >= min(8, largest)]
    why = f"{looked.total:,} images are few"
    return [
        Setting("training.batch_size", str(choices[0]), why),
        Setting("tuning.search_space.batch_size", f"{{choices: {choices}}}", why),
    ]


def _weights(config: Config, *, stack: str) -> list[Setting]:
    if stack == "sagemaker":
        return []  # its jobs fetch them; `check` tells where their network does not let them
    problem = _imagenet_problem(config.model.architecture)
    if problem is None:
        return [Setting("model.weights", "imagenet", "pretrained: they can be had here")]
    return [
        Setting(
            "model.weights", "none", f"from scratch: ImageNet's cannot be had here ({problem})"
        ),
        *_FROM_SCRATCH,
    ]


def _imagenet_problem(architecture: str) -> str | None:
    from darkroom.models.network import imagenet_problem  # imports torch, which takes seconds

    return imagenet_problem(architecture)


def _has_gpu(config: Config, *, stack: str) -> bool:
    """Whether training will find one; asked without importing torch, which takes seconds."""
    if stack == "sagemaker":
        return config.sagemaker.training.instance_type.startswith(("ml.g", "ml.p"))
    return Path("/proc/driver/nvidia/version").exists()


def _is_folder(source: Source) -> bool:
    is_plain = source.kind == "path" and not source.polyvore
    return is_plain and Path(source.location).expanduser().is_dir()


def _look(
    source: Source, *, config: Config, fetch: bool, progress: Progress | None
) -> _Looked | None:
    """A sample; None where nothing can be looked at. What is wrong is found, and told, later."""
    if source.polyvore:
        return None
    with suppress(DarkroomError, OSError):
        if source.kind == "path":
            path = Path(source.location).expanduser()
            return _looked(path, source=source, config=config)
        if progress is not None and fetch:
            from darkroom.backends.storage.ingestion import bring

            store = workspace() / "data"
            brought = bring(source, config=config.data, store=store, progress=progress)
            return _looked(brought.root, source=source, config=config)
        if source.kind == "s3":
            from darkroom.backends.storage.s3 import sample_images

            contents, total = sample_images(
                source.location,
                count=_SAMPLED_REMOTELY,
                maximum_bytes=config.data.maximum_archive_bytes,
                maximum_files=config.data.maximum_files,
            )
            return _of_contents(contents, total=total)
    return None


def _looked(path: Path, *, source: Source, config: Config) -> _Looked | None:
    from darkroom.data.assembly import understand
    from darkroom.data.image_folder import is_image_name
    from darkroom.data.local import list_path

    listing = list_path(path, config=config.data)
    names = [each.path for each in listing.files if is_image_name(each.path)]
    if path.is_dir():
        understand(listing, source=source, config=config.data, root=path)
        count = min(len(names), _SAMPLED)
        chosen = [names[position * len(names) // count] for position in range(count)]
        looked = _of_contents((path / name for name in chosen), total=len(names))
        return replace(looked, listing=listing) if looked else None
    from darkroom.data.inputs import images_in_archive

    encoding = config.data.zip_encoding
    found = islice(images_in_archive(path, name=str(path), zip_encoding=encoding), _SAMPLED)
    return _of_contents((one.content for one in found if one.content), total=len(names))


def _of_contents(contents: Iterable[bytes | Path], *, total: int | None) -> _Looked | None:
    sides: list[int] = []
    greys: list[bool] = []
    for content in contents:
        with (
            suppress(Exception),  # of whatever kind: validation will tell what is wrong with it
            open_image(content, shorter_side=_SMALL_SIDE) as (image, size),
        ):
            sides.append(min(size))
            if len(greys) < _LOOKED_AT_FOR_COLOUR:
                greys.append(_is_grey(image))
    if not sides:
        return None
    return _Looked(sides=tuple(sides), is_grey=bool(greys) and all(greys), total=total)


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "I", "I;16", "F"):
        return True
    image.draft("RGB", (64, 64))
    image.thumbnail((32, 32))
    channels = image.convert("RGB").split()
    pixels = [channel.tobytes() for channel in channels]
    return all(
        abs(a - b) <= 3 for other in pixels[1:] for a, b in zip(pixels[0], other, strict=True)
    )


def told(settings: Sequence[Setting]) -> list[str]:
    """Lines for people: what was chosen for them, and why."""
    width = max((len(setting.override) for setting in settings), default=0)
    return [f"  {setting.override:{width}}  {setting.reason}" for setting in settings]


# --- settings ---

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
