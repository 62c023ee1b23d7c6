"""Estimate how long a run takes on SageMaker and what it costs, before anything is started."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from darkroom.backends.sagemaker.costs.prices import Kind, Rate, find_rate
from darkroom.backends.sagemaker.costs.throughput import (
    TRANSFER,
    UPLOAD,
    DataSize,
    Span,
    Workload,
    inference_speed,
    training_speed,
)
from darkroom.backends.sagemaker.requests import has_own_disks
from darkroom.config import Config
from darkroom.config.tuning import trials_wanted
from darkroom.data.source_names import parse_source

# --- estimate ---

STARTUP_SECONDS: dict[str, Span] = {
    "training": Span(120, 300),
    "spot_training": Span(120, 900),
    "warm_training": Span(15, 60),
    "processing": Span(180, 420),
    "transform": Span(240, 480),
    "endpoint": Span(240, 600),
    "serverless_endpoint": Span(60, 240),
}
"""From the request until our program runs: the machine, the image, the data. Experience of
many users, measured by nobody here; spot capacity may take hours."""

_MAX_DISCOUNT = 0.9  # of spot, as AWS advertises it
_CLOSING_SECONDS = Span(20, 90)
"""Of a training job, after its last epoch: export, packing, upload of the model."""
_LIGHT_SECONDS = Span(90, 400)
"""Of the components inside the orchestration job, without what grows with the data."""
_ENDPOINT_CHECK_SECONDS = Span(20, 120)
"""The endpoint's predictions, and its removal."""
_TRANSFORM_IMAGES_PER_SECOND = Span(5, 50)
_USD_PER_PUT = 5e-6
_PUTS_PER_TRANSFORMED_IMAGE = 2
"""The image is an object, and so is its answer."""
_GIGABYTE = 2**30
_USABLE = 0.95
"""Of a volume: the file system has some."""
_OTHER_BYTES = 3e9
"""What else a job writes: model, checkpoints, recording, logs."""


@dataclass(frozen=True)
class JobEstimate:
    """Managed jobs of one sort."""

    what: str
    instance_type: str
    """Empty: no instances, such as a serverless endpoint."""
    kind: Kind
    jobs: int
    instances: int
    """Of each job."""
    seconds: Span | None
    """From the first job's request to the last one's end; None: unknown."""
    billed_seconds: Span | None
    """Of all jobs and instances together."""
    rate: Rate | None
    spot: bool = False
    scales_to_zero: bool = False
    """An endpoint that has no instance while nothing waits."""
    requests_usd: float = 0
    """What S3 takes for its requests, where they are many."""

    @property
    def cost(self) -> Span | None:
        """In USD; None where the price or the duration is unknown."""
        if self.rate is None or self.billed_seconds is None:
            return None
        hourly = self.rate.usd_per_hour
        cheapest = 1 - _MAX_DISCOUNT if self.spot else 1
        low, high = self.billed_seconds
        return Span(
            low / 3600 * hourly * cheapest + self.requests_usd,
            high / 3600 * hourly + self.requests_usd,
        )


@dataclass(frozen=True)
class Limit:
    """A setting that a run may go beyond."""

    setting: str
    """Its key."""
    allowed: float
    """In the unit of `needed`: bytes or seconds."""
    needed: Span
    of: str
    """What it is needed for."""
    unit: Literal["bytes", "seconds"]

    @property
    def is_broken(self) -> bool:
        """Whether the least that is to be expected is too much."""
        return self.needed.low > self.allowed

    @property
    def is_in_danger(self) -> bool:
        """Whether the most that is to be expected is too much."""
        return self.needed.high > self.allowed


@dataclass(frozen=True)
class Estimate:
    """What a run comes to."""

    jobs: Sequence[JobEstimate]
    seconds: Span | None
    """From the command to the end; None: unknown."""
    region: str
    data: DataSize | None
    """What it is estimated for; None: nothing is known of the data."""
    upload: Span | None
    """Seconds in which data of this machine are sent to S3; None: they are elsewhere."""
    limits: Sequence[Limit]

    @property
    def cost(self) -> Span:
        """In USD, of all jobs whose price and duration are known."""
        known = [job.cost for job in self.jobs if job.cost]
        return Span(sum(cost.low for cost in known), sum(cost.high for cost in known))

    @property
    def unknown_prices(self) -> list[str]:
        """Instance types and uses of which no table knows the price."""
        missing = (job for job in self.jobs if job.instance_type and job.rate is None)
        return list(dict.fromkeys(f"{job.instance_type} ({job.kind})" for job in missing))


def estimate_run(config: Config, *, data: DataSize | None, region: str) -> Estimate:
    """Estimate a run that finds nothing of earlier ones to reuse.

    Args:
        data: the whole data set; None: unknown, and so are durations.

    Raises:
        UserError: the refreshed prices are damaged.
    """
    return _Estimating(config, data=data, region=region).run()


class _Estimating:
    def __init__(self, config: Config, *, data: DataSize | None, region: str) -> None:
        self.config = config
        self.jobs_config = config.sagemaker
        self.data = data
        self.region = region

    def run(self) -> Estimate:
        heavy = [job for job in (self._tuning(), self._training(), *self._serving()) if job]
        seconds = _sum([job.seconds for job in heavy])
        inside = _sum([seconds, self._light_seconds()])
        orchestration = self._orchestration(inside)
        upload = self._upload()
        return Estimate(
            jobs=[orchestration, *heavy],
            seconds=_sum([orchestration.seconds, upload or Span(0, 0)]),
            region=self.region,
            data=self.data,
            upload=upload,
            limits=[*self._disks(), *self._runtimes(inside)],
        )

    def _upload(self) -> Span | None:
        """Seconds until data that lie here are on S3."""
        is_here = parse_source(self.config.data.source).kind not in ("digits", "http", "s3")
        return self.data.transferred(UPLOAD) if is_here and self.data else None

    def _light_seconds(self) -> Span | None:
        """Of what the orchestration job does itself: it brings, validates and publishes all
        images, and classifies those of the test split."""
        machine = self.jobs_config.orchestration.instance_type
        speed = inference_speed(self._workload, instance_type=machine)
        if self.data is None or speed is None:
            return None
        tested = self.data.share(self.config.data.test_fraction).images
        return _sum(
            [
                _LIGHT_SECONDS,
                self.data.transferred(),
                self.data.inspected(machine),
                self.data.transferred(),
                Span(tested.low / speed.high, tested.high / speed.low),
            ]
        )

    @property
    def _workload(self) -> Workload:
        return Workload(self.config.model.architecture, self.config.model.image_size)

    @property
    def _trained_on(self) -> DataSize | None:
        """What one machine of a training gets: images to train on, and to validate with."""
        if self.data is None:
            return None
        settings = self.jobs_config.training
        shared = settings.distribution == "ShardedByS3Key"
        fraction = self.config.data.validation_fraction
        trained = 1 - self.config.data.test_fraction - fraction
        return self.data.share(fraction + trained / (settings.instance_count if shared else 1))

    def _disks(self) -> Iterator[Limit]:
        """What lies on each volume at its fullest."""
        if self.data is None or self._trained_on is None:
            return
        orchestration, training = self.jobs_config.orchestration, self.jobs_config.training
        twice = 2 * self.data.size + _OTHER_BYTES
        if not has_own_disks(orchestration.instance_type):
            yield Limit(
                "sagemaker.orchestration.volume_gb",
                allowed=orchestration.volume_gb * _GIGABYTE * _USABLE,
                needed=Span(twice, twice),
                of="the data as they come, and unpacked or packed anew",
                unit="bytes",
            )
        if not has_own_disks(training.instance_type):
            shards = self._trained_on.size * (2 if training.input_mode == "File" else 1)
            decoded = self._trained_on.decoded_bytes(self.config.model.working_size)
            copied = "shards, the same unpacked" if training.input_mode == "File" else "images"
            yield Limit(
                "sagemaker.training.volume_gb",
                allowed=training.volume_gb * _GIGABYTE * _USABLE,
                needed=Span(
                    shards + decoded.low + _OTHER_BYTES, shards + decoded.high + _OTHER_BYTES
                ),
                of=f"{copied}, and all images decoded at working size",
                unit="bytes",
            )

    def _runtimes(self, inside: Span | None) -> Iterator[Limit]:
        """What each job may last, and would."""
        orchestration, training = self.jobs_config.orchestration, self.jobs_config.training
        one = self._training_seconds(self._epochs())
        if one:
            yield Limit(
                "sagemaker.training.max_runtime_seconds",
                allowed=training.max_runtime_seconds,
                needed=one,
                of="one training",
                unit="seconds",
            )
        if inside:
            yield Limit(
                "sagemaker.orchestration.max_runtime_seconds",
                allowed=orchestration.max_runtime_seconds,
                needed=inside,
                of="the whole pipeline",
                unit="seconds",
            )

    def _orchestration(self, inside: Span | None) -> JobEstimate:
        return self._job(
            "orchestration, for the whole run",
            kind="training",
            instance_type=self.jobs_config.orchestration.instance_type,
            seconds=_sum([STARTUP_SECONDS["training"], inside]),
            billed=inside,
        )

    def _training(self) -> JobEstimate:
        return self._trainings("training", jobs=1, parallel=1, epochs=self._epochs())

    def _tuning(self) -> JobEstimate | None:
        tuning = self.config.tuning
        if not tuning.enabled:
            return None
        trials = trials_wanted(tuning)
        parallel = min(self.jobs_config.tuning.parallel_jobs, trials)
        return self._trainings(
            f"tuning, {parallel} at once",
            jobs=trials,
            parallel=parallel,
            epochs=self._epochs(),
        )

    def _epochs(self) -> Span:
        """Of one training: those searched, where the search varies them."""
        searched = self.config.tuning.search_space.epochs if self.config.tuning.enabled else None
        low, high = (
            (searched.low, searched.high) if searched else (self.config.training.epochs,) * 2
        )
        # A trial that is pruned, or a training that stops early, may take half of them.
        shortened = (
            self.config.tuning.pruning != "none" or self.config.training.early_stopping_epochs
        )
        return Span(low / 2 if shortened else low, high)

    def _trainings(self, what: str, *, jobs: int, parallel: int, epochs: Span) -> JobEstimate:
        settings = self.jobs_config.training
        working = self._training_seconds(epochs)
        start = STARTUP_SECONDS["spot_training" if settings.spot else "training"]
        one = _sum([start, working])
        waves = ceil(jobs / parallel)
        machines = jobs * settings.instance_count
        return self._job(
            what,
            kind="training",
            instance_type=settings.instance_type,
            jobs=jobs,
            instances=settings.instance_count,
            seconds=_times(one, waves),
            billed=_times(working, machines),
            spot=settings.spot,
        )

    def _training_seconds(self, epochs: Span) -> Span | None:
        """Of one job once it runs."""
        speed = training_speed(
            self._workload,
            instance_type=self.jobs_config.training.instance_type,
            processes=self.config.training.processes,
        )
        here = self._trained_on
        if self.data is None or here is None or speed is None:
            return None
        seen = self.data.share(1 - self.config.data.test_fraction).images
        count = self.jobs_config.training.instance_count
        return _sum(
            [
                here.transferred(),
                here.transferred(),  # the shards, unpacked
                here.decoded(self.jobs_config.training.instance_type),
                Span(
                    epochs.low * seen.low / (speed.high * count),
                    epochs.high * seen.high / speed.low / max(1, 0.7 * count),
                ),
                _CLOSING_SECONDS,
            ]
        )

    def _serving(self) -> list[JobEstimate]:
        if not self.config.deployment.enabled:
            return []
        batch = self._transform() if self.config.batch.split != "none" else None
        return [self._endpoint(), *([batch] if batch else [])]

    def _endpoint(self) -> JobEstimate:
        hosting = self.jobs_config.hosting
        serverless = hosting.kind == "serverless"
        start = STARTUP_SECONDS["serverless_endpoint" if serverless else "endpoint"]
        seconds = Span(*map(sum, zip(start, _ENDPOINT_CHECK_SECONDS, strict=True)))
        instances = max(1, hosting.autoscaling.min_instances)
        return self._job(
            "endpoint, until it is checked",
            kind="hosting",
            instance_type="" if serverless else hosting.instance_type,
            instances=instances,
            seconds=seconds,
            billed=_times(seconds, instances),
            scales_to_zero=not hosting.autoscaling.min_instances,
        )

    def _transform(self) -> JobEstimate:
        settings = self.jobs_config.transform
        start = STARTUP_SECONDS["transform"]
        working = self._transform_seconds(settings.instance_count)
        images = self._transformed
        puts = _PUTS_PER_TRANSFORMED_IMAGE * images.high if images else 0
        return self._job(
            "batch transform",
            kind="transform",
            instance_type=settings.instance_type,
            instances=settings.instance_count,
            seconds=_sum([start, working]),
            billed=_times(working, settings.instance_count),
            requests_usd=puts * _USD_PER_PUT,
        )

    @property
    def _transformed(self) -> Span | None:
        if self.data is None:
            return None
        data = self.config.data
        shares = {"validation": data.validation_fraction, "test": data.test_fraction}
        return self.data.share(shares.get(self.config.batch.split, 1 - sum(shares.values()))).images

    def _transform_seconds(self, instances: int) -> Span | None:
        images, speed = self._transformed, _TRANSFORM_IMAGES_PER_SECOND
        if images is None:
            return None
        return Span(images.low / instances / speed.high, images.high / instances / speed.low)

    def _job(
        self,
        what: str,
        *,
        kind: Kind,
        instance_type: str,
        seconds: Span | None,
        billed: Span | None,
        jobs: int = 1,
        instances: int = 1,
        spot: bool = False,
        scales_to_zero: bool = False,
        requests_usd: float = 0,
    ) -> JobEstimate:
        rate = find_rate(instance_type, region=self.region, kind=kind) if instance_type else None
        return JobEstimate(
            what=what,
            instance_type=instance_type,
            kind=kind,
            jobs=jobs,
            instances=instances,
            seconds=seconds,
            billed_seconds=billed,
            rate=rate,
            spot=spot,
            scales_to_zero=scales_to_zero,
            requests_usd=requests_usd,
        )


def _sum(spans: Sequence[Span | None]) -> Span | None:
    known = [span for span in spans if span is not None]
    if len(known) < len(spans):
        return None
    return Span(sum(span.low for span in known), sum(span.high for span in known))


def _times(span: Span | None, factor: float) -> Span | None:
    return Span(span.low * factor, span.high * factor) if span else None


# --- estimate lines ---
# An estimate, for people to read.

_BYTES_OF_A_VOLUMES_GIGABYTE = 0.95 * 2**30
"""Of which files can have so much."""

_REFRESH = "python run.py check --stack sagemaker --refresh-prices"


def estimate_lines(estimate: Estimate) -> list[str]:
    """A line for each sort of job, the sum, and what it rests on."""
    rows = [_row(job) for job in estimate.jobs]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + f"  {cost}"
        for row in rows
        for cost in row[3:]
    ]
    return [
        *_upload(estimate),
        *table,
        _total(estimate),
        *_kept_endpoint(estimate),
        *_assumptions(estimate),
        *_basis(estimate),
    ]


def limit_problems(estimate: Estimate) -> list[str]:
    """Limits that the run would go beyond, each with what to set it to."""
    return [
        f"{limit.setting}: {_limit(limit)}; set it to {_enough(limit):,} or more"
        for limit in estimate.limits
        if limit.is_broken
    ]


def limit_notes(estimate: Estimate) -> list[str]:
    """Limits that the run may go beyond."""
    return [
        f"{limit.setting}: {_limit(limit)}; {_enough(limit):,} would be enough for that"
        for limit in estimate.limits
        if limit.is_in_danger and not limit.is_broken
    ]


def _limit(limit: Limit) -> str:
    if limit.unit == "bytes":
        allowed, needed = (
            f"{limit.allowed / 1e9:,.0f} GB of it can be used",
            _amount(limit.needed),
        )
    else:
        allowed, needed = duration(Span(limit.allowed, limit.allowed)), duration(limit.needed)
    return f"{allowed}, and {limit.of} takes {needed}"


def _enough(limit: Limit) -> int:
    """The value in the setting's unit that the most to be expected needs."""
    if limit.unit == "seconds":
        return ceil(limit.needed.high / 3600) * 3600
    return ceil(limit.needed.high / _BYTES_OF_A_VOLUMES_GIGABYTE / 10) * 10


def _amount(size: Span) -> str:
    """Bytes, for people: '294–510 GB'."""
    unit, bytes_of_one = ("GB", 1e9) if size.high >= 1e9 else ("MB", 1e6)
    digits = 0 if size.low >= 10 * bytes_of_one else 1
    low, high = (f"{each / bytes_of_one:,.{digits}f}" for each in size)
    return f"{low if low == high else f'{low}–{high}'} {unit}"


def _upload(estimate: Estimate) -> list[str]:
    if estimate.upload is None or estimate.data is None:
        return []
    size = _amount(Span(estimate.data.size, estimate.data.size))
    return [f"upload of {size} from this machine  {duration(estimate.upload)}"]


def _assumptions(estimate: Estimate) -> list[str]:
    data = estimate.data
    if data is None:
        return ["Nothing is known of the size of the data, so nothing of what depends on it."]
    if data.is_counted:
        images = f"{data.images.low:,.0f} images"
    else:
        low, high = (f"{float(f'{each:.2g}'):,.0f}" for each in data.images)
        images = f"{low}–{high} images (50–300 kB each: nobody has counted them)"
    rate = f"{TRANSFER.low / 1e6:.0f}–{TRANSFER.high / 1e6:.0f} MB/s"
    return [
        f"Assumed: {_amount(Span(data.size, data.size))} in {images}; {rate} between S3 "
        "and machines. Measured on one core: 3 ms to validate, and as long to decode, an image of "
        "110 kB."
    ]


def duration(seconds: Span | None) -> str:
    """'12–50 min' or '1.5–4.0 h'."""
    if seconds is None:
        return "unknown time"
    if seconds.high >= 2 * 3600:
        low, high, unit = f"{seconds.low / 3600:.1f}", f"{seconds.high / 3600:.1f}", "h"
    else:
        low, high = (str(max(1, round(each / 60))) for each in seconds)
        unit = "min"
    return f"{low} {unit}" if low == high else f"{low}–{high} {unit}"


def _row(job: JobEstimate) -> tuple[str, str, str, str]:
    times = f"{job.jobs} × " if job.jobs > 1 else ""
    machines = f"{job.instances} × " if job.instances > 1 else ""
    machine = job.instance_type or "serverless"
    return job.what, f"{times}{machines}{machine}", duration(job.seconds), _cost(job)


def _cost(job: JobEstimate) -> str:
    if not job.instance_type:
        return "billed by request"
    if job.rate is None:
        return "price unknown"
    if job.cost is None:
        return f"${job.rate.usd_per_hour:g} an hour"
    return _money(job.cost) + (", 0–90 % off for spot" if job.spot else "")


def _money(cost: Span) -> str:
    return f"${cost.low:.2f}–{cost.high:.2f}"


def _total(estimate: Estimate) -> str:
    known = [job for job in estimate.jobs if job.cost]
    cost = _money(estimate.cost) if known else "an unknown cost"
    missing = "" if len(known) == len(estimate.jobs) else ", without what is unknown"
    return f"Together {duration(estimate.seconds)} and {cost}{missing}. Rough: no job was timed."


def _kept_endpoint(estimate: Estimate) -> list[str]:
    return [
        f"An endpoint that is kept (--keep-endpoint) costs ${job.rate.usd_per_hour:g} an hour "
        f"and instance until `run.py down`: {_kept_day(job, hourly=job.rate.usd_per_hour)}."
        for job in estimate.jobs
        if job.kind == "hosting" and job.rate
    ]


def _kept_day(job: JobEstimate, *, hourly: float) -> str:
    if job.scales_to_zero:
        return f"nothing while it has scaled to zero, {_day(hourly)} a day and instance else"
    return f"{_day(hourly * job.instances)} a day"


def _day(hourly: float) -> str:
    return f"${24 * hourly:.2f}"


def _basis(estimate: Estimate) -> list[str]:
    sources = dict.fromkeys(
        f"Prices of {estimate.region}, {job.rate.date}: {job.rate.source}."
        for job in estimate.jobs
        if job.rate
    )
    unknown = estimate.unknown_prices
    missing = [f"No price is known for {', '.join(unknown)}. Ask AWS: {_REFRESH}"]
    return [*sources, *(missing if unknown else [])]
