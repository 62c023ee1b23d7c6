"""What a configuration may say. Imports neither torch, ZenML nor boto3.

Every section is frozen, refuses unknown keys and has a default for each key, so a YAML
says only what differs. Reading a file and wording its errors: loader.py.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from darkroom.config.debugging import Debugging, DiagnosisConfig, RecordingConfig
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.config.sections import ARCHITECTURES, CompilationConfig, Metric, Section, Split
from darkroom.config.tuning import TuningConfig

ProblemPolicy = Literal["stop", "leave_out", "warn"]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def _known_architecture(name: str) -> str:
    if name not in ARCHITECTURES:
        raise ValueError(f"must be one of torchvision's architectures: {', '.join(ARCHITECTURES)}")
    return name


def _unquoted(text: str) -> str:
    # As a hyperparameter on SageMaker, where texts may come in quotes, it could not be told apart.
    if text.startswith('"'):
        raise ValueError("begins with a quotation mark: leave it out")
    return text


def _listed(value: object) -> object:
    """One name as a list of it, and a list as it is."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed)]
"""One name, or several."""


class SplitFolders(Section):
    """Which folders, or values of the labels' split column, are which split."""

    train: Names = ()
    """A folder, or a list of folders, by the path inside the source."""
    validation: Names = ()
    """As train; none: taken from train."""
    test: Names = ()
    """As train; none: taken from train."""

    @property
    def named(self) -> "dict[Split, tuple[str, ...]]":
        """The splits that are named at all."""
        by_split: dict[Split, tuple[str, ...]] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return {split: names for split, names in by_split.items() if names}

    @model_validator(mode="after")
    def _train_is_named(self) -> Self:
        if self.named and not self.train:
            raise ValueError("names splits, but not train; name the folder to train on, too")
        names = [name for folders in self.named.values() for name in folders]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names {', '.join(map(repr, twice))} more than once")
        return self


class LabelColumns(Section):
    """Columns of the files that data.labels names; empty: guessed from the usual names."""

    path: str = ""
    """Column with the image's path, name or id, with or without its extension."""
    label: str = ""
    """Column with its class."""
    split: str = ""
    """Column with its split; 'none': there is none, and folders are no splits either."""


def known_encoding(name: str) -> str:
    """The name of an encoding of text, or none.

    Raises:
        ValueError: Python does not know it.
    """
    try:
        "".encode(name or "utf-8")  # codecs that make no text of bytes are none, such as base64
    except LookupError:
        raise ValueError("must be an encoding that Python knows, such as cp932 or gbk") from None
    return name


class DataConfig(Section):
    """Where the images come from, how they are split and what is done about bad ones."""

    source: str = "digits"
    """Folder, archive, http(s) URL, s3://bucket/prefix, polyvore:FOLDER, or 'digits'."""
    layout: Literal["auto", "classes"] = "auto"
    """'auto': splits and classes by the folders' names; 'classes': the top folders are the
    classes, whatever they are called."""
    splits: SplitFolders = SplitFolders()
    """Folders of the splits, where their names do not say it: {train: FOLDER, test: FOLDER}."""
    exclude: Names = ()
    """Folders or files to leave out, by path inside the source, or by pattern: '*/masks'."""
    labels: Names = ()
    """CSV, TSV or JSON Lines file with a row an image, by its path inside the source or on
    this machine; a list for several. Empty: known ones are found where folders do not say the
    classes; 'none': none."""
    label_columns: LabelColumns = LabelColumns()
    """Which columns of the label files are which."""
    group: str = ""
    """Column of the label files with the person, patient or place that an image is of:
    images of one group are never parted by splits; empty: guessed, 'none': there is none."""
    validation_fraction: Fraction = 0.15
    """Share of the images held out for validation where the source has no such split."""
    test_fraction: Fraction = 0.15
    """Share of the images held out for the test where the source has no such split."""
    on_undecodable: Literal["stop", "leave_out"] = "stop"
    """Images that cannot be decoded, or are truncated."""
    on_leakage: ProblemPolicy = "leave_out"
    """The same image in two splits; 'leave_out' keeps the copy in the test split."""
    on_near_duplicates: Literal["leave_out", "warn"] = "warn"
    """Images of different splits that look the same."""
    on_shared_groups: Literal["stop", "warn"] = "warn"
    """One person, patient or place in two splits, where the source has both."""
    near_duplicate_distance: Annotated[int, Field(ge=0, le=16)] = 3
    """Bits, of 64, in which the perceptual hashes of near duplicates differ at most."""
    maximum_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = 100_000_000
    """An image that decodes to more is treated as on_undecodable says. JPEGs far larger than is
    needed are decoded at a fraction of their size; 100 million pixels take 300 MB and more."""
    maximum_aspect_ratio: Annotated[int, Field(ge=1, le=1000)] = 50
    """An image whose longer side is more than so many times the shorter is treated likewise."""
    minimum_images_per_class: PositiveInt = 5
    """A class with fewer images is reported as tiny."""
    maximum_class_ratio: Annotated[float, Field(ge=1)] = 10
    """Largest class to smallest class: beyond it the data set is reported as imbalanced."""
    maximum_archive_bytes: PositiveInt = 50 * 2**30
    """An archive that unpacks to more is refused."""
    maximum_files: PositiveInt = 2_000_000
    """A source with more files is refused."""
    zip_encoding: Annotated[str, AfterValidator(known_encoding)] = ""
    """Of a zip's names that are not marked as UTF-8, such as cp932; empty: found out."""
    polyvore_classes: dict[str, tuple[int, ...]] = {}
    """Class name to Polyvore category ids; empty: each category is a class of its own."""

    @model_validator(mode="after")
    def _something_left_to_train(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"validation_fraction ({self.validation_fraction:g}) + test_fraction "
                f"({self.test_fraction:g}) must be less than 1, to leave images to train on"
            )
        return self

    @property
    def label_files(self) -> tuple[str, ...]:
        """The files with labels that are named."""
        return () if self.labels == ("none",) else self.labels

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        if self.layout == "classes" and (self.splits.named or self.label_files):
            raise ValueError(
                "layout 'classes' makes the top folders the classes, without splits and labels; "
                "leave out layout, or splits and labels"
            )
        return self


class ModelConfig(Section):
    """The network and what it sees."""

    architecture: Annotated[str, AfterValidator(_known_architecture)] = "resnet18"
    """Any of torchvision's classification architectures, by name."""
    weights: Annotated[str, Field(min_length=1), AfterValidator(_unquoted)] = "imagenet"
    """'imagenet', 'none', or a bundle or .safetensors file by path or URI."""
    fine_tune: Literal["all", "head"] = "all"
    """Train all layers, or only the new classification head."""
    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    """Height and width that the network sees, in pixels."""
    resize_size: Annotated[int, Field(ge=0, le=1536)] = 0
    """Length of the shorter side before the centre crop; 0: image_size × 256 / 224."""

    @property
    def working_size(self) -> int:
        """Length of the shorter side to which images are resized before the crop."""
        return self.resize_size or round(self.image_size * 256 / 224)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize_size and self.resize_size < self.image_size:
            raise ValueError(
                f"resize_size ({self.resize_size}) must be 0 or at least image_size "
                f"({self.image_size})"
            )
        return self


class TrainingConfig(Section):
    """How the network is trained. The tuner overrides the values it searches."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    """Seed of splits, initial weights, augmentation, order and search."""
    epochs: PositiveInt = 10
    """Passes over the training images."""
    batch_size: PositiveInt = 32
    """Images in one optimiser step, over all processes together."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Peak learning rate, reached after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-2
    """Decoupled for adamw, L2 for sgd; not applied to biases and normalisation."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimiser."""
    momentum: Fraction = 0.9
    """Momentum of sgd."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.5
    """Epochs of linear warm-up before the cosine decay to zero."""
    label_smoothing: Fraction = 0.0
    """Probability mass spread over the other classes."""
    imbalance: Literal["none", "class_weights", "stratified_sampling"] = "none"
    """Against imbalance: weigh the loss, or draw each class equally often."""
    mixed_precision: Literal["auto", "off"] = "auto"
    """'auto': bfloat16 or float16 where the hardware is faster with it; off on small images."""
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    early_stopping_epochs: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a better objective, those of the warm-up not counted;
    0: never."""
    objective: Metric = "f1_macro"
    """Validation metric by which the best epoch is kept."""
    augmentation: Literal["none", "crop", "crop_flip"] = "crop_flip"
    """Random resized crop, and mirror images where left and right do not matter."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of each training process; 0: one for small images, else one for each core."""
    processes: PositiveInt = 1
    """Training processes on this machine, started by torchrun."""

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs:g}) must be less than epochs ({self.epochs})"
            )
        return self


class EvaluationConfig(Section):
    """Metrics and reports on the test split."""

    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Simulated test sets, for each strength of miscalibration that is tried, behind the
    interval of the calibration error; the other intervals need none."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Coverage of the intervals."""
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 15
    """Equal-width bins of the expected calibration error."""
    grid_images: Annotated[int, Field(ge=1, le=100)] = 24
    """Pictures in the grid of predictions."""


START_TIMEOUT_SECONDS = 300


class DeploymentConfig(Section):
    """The gate before deployment, and the endpoint's check."""

    enabled: bool = True
    """false: end with the registered model."""
    gate_metric: Metric = "accuracy"
    """Test metric that decides whether the model is deployed."""
    gate_threshold: Annotated[float, Field(ge=0)] = 0.5
    """Worst value at which the model is still deployed."""
    check_images: PositiveInt = 32
    """Test images sent to the endpoint and compared with the evaluation."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Largest difference of a probability between endpoint and evaluation."""
    start_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = START_TIMEOUT_SECONDS
    """How long the endpoint may take until it answers /ping; on SageMaker at least 60, and as long
    for the model's download before. Serverless endpoints have limits of their own."""


class BatchConfig(Section):
    """Predictions for a whole split, after the endpoint's check."""

    split: Literal["none", "train", "validation", "test"] = "none"
    """Which one; a batch transform job on SageMaker."""


class TrackingConfig(Section):
    """How runs are named in MLflow and in the model registry."""

    experiment: Annotated[str, Field(min_length=1)] = "darkroom"
    """MLflow experiment."""
    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = (
        "darkroom-classifier"
    )
    """Name in MLflow's and ZenML's model registries."""
    system_metrics: bool = True
    """Sample CPU, memory, disk and network while training."""
    tags: dict[str, str] = {}
    """Tags of the run."""


class Config(Section):
    """A whole configuration."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    tuning: TuningConfig = TuningConfig()
    recording: RecordingConfig = RecordingConfig()
    diagnosis: DiagnosisConfig = DiagnosisConfig()
    compilation: CompilationConfig = CompilationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    deployment: DeploymentConfig = DeploymentConfig()
    batch: BatchConfig = BatchConfig()
    tracking: TrackingConfig = TrackingConfig()
    sagemaker: SageMakerConfig = SageMakerConfig()

    @property
    def hyperparameters(self) -> "Hyperparameters":
        """Everything the `train` program needs to know, flat."""
        return Hyperparameters(**self.model.model_dump(), **self.training.model_dump())

    @property
    def debugging(self) -> Debugging:
        """How a training is recorded and judged."""
        return Debugging(recording=self.recording, diagnosis=self.diagnosis)


class Hyperparameters(ModelConfig, TrainingConfig):
    """Model and training configuration in one flat set: what the `train` program takes.

    Only int, float, str and bool, since SageMaker carries hyperparameters as strings.
    """

    def replace(self, **values: int | float | str) -> "Hyperparameters":
        """A validated copy with some values changed; the warm-up shrinks to fit the epochs."""
        merged = {**self.model_dump(), **values}
        if merged["warmup_epochs"] >= merged["epochs"]:
            merged["warmup_epochs"] = merged["epochs"] / 2
        return Hyperparameters(**merged)
