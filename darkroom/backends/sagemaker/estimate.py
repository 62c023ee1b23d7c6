"""How long a run takes on SageMaker and what it costs, before anything is started.

A range, and rough: start-up times and speeds (throughput.py) are orders of magnitude, prices
those of prices.py. What is not known is said, not guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from darkroom.backends.sagemaker.prices import Kind, Rate, find_rate
from darkroom.backends.sagemaker.throughput import Span, Workload, training_speed
from darkroom.config import Config
from darkroom.config.grid import trials_wanted

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

_LARGEST_DISCOUNT = 0.9  # of spot, as AWS advertises it
_CLOSING_SECONDS = Span(20, 90)
"""Of a training job, after its last epoch: export, packing, upload of the model."""
_LIGHT_SECONDS = Span(90, 400)
"""Of the components inside the orchestration job: ingest, validate, evaluate, register."""
_ENDPOINT_CHECK_SECONDS = Span(20, 120)
"""The endpoint's predictions, and its removal."""
_TRANSFORM_IMAGES_PER_SECOND = Span(5, 50)


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

    @property
    def cost(self) -> Span | None:
        """In USD; None where the price or the duration is unknown."""
        if self.rate is None or self.billed_seconds is None:
            return None
        hourly = self.rate.usd_per_hour
        cheapest = 1 - _LARGEST_DISCOUNT if self.spot else 1
        low, high = self.billed_seconds
        return Span(low / 3600 * hourly * cheapest, high / 3600 * hourly)


@dataclass(frozen=True)
class Estimate:
    """What a run comes to."""

    jobs: Sequence[JobEstimate]
    seconds: Span | None
    """From the command to the end; None: unknown."""
    region: str

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


def estimate_run(config: Config, *, images: int | None, region: str) -> Estimate:
    """Estimate a run that finds nothing of earlier ones to reuse.

    Args:
        images: of the whole data set; None: unknown, and so are durations.

    Raises:
        UserError: the refreshed prices are damaged.
    """
    return _Estimating(config, images=images, region=region).run()


class _Estimating:
    def __init__(self, config: Config, *, images: int | None, region: str) -> None:
        self.config = config
        self.jobs_config = config.sagemaker
        self.images = images
        self.region = region

    def run(self) -> Estimate:
        heavy = [job for job in (self._tuning(), self._training(), *self._serving()) if job]
        seconds = _sum([job.seconds for job in heavy])
        inside = _sum([seconds, _LIGHT_SECONDS])
        orchestration = self._orchestration(inside)
        return Estimate(
            jobs=[orchestration, *heavy], seconds=orchestration.seconds, region=self.region
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
            Workload(self.config.model.architecture, self.config.model.image_size),
            instance_type=self.jobs_config.training.instance_type,
            processes=self.config.training.processes,
        )
        if self.images is None or speed is None:
            return None
        data = self.config.data
        seen = self.images * (1 - data.test_fraction)  # trained on, or validated with
        count = self.jobs_config.training.instance_count
        return Span(
            epochs.low * seen / (speed.high * count) + _CLOSING_SECONDS.low,
            epochs.high * seen / speed.low / max(1, 0.7 * count) + _CLOSING_SECONDS.high,
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
        return self._job(
            "batch transform",
            kind="transform",
            instance_type=settings.instance_type,
            instances=settings.instance_count,
            seconds=_sum([start, working]),
            billed=_times(working, settings.instance_count),
        )

    def _transform_seconds(self, instances: int) -> Span | None:
        if self.images is None:
            return None
        data = self.config.data
        shares = {"validation": data.validation_fraction, "test": data.test_fraction}
        share = shares.get(self.config.batch.split, 1 - sum(shares.values()))
        images, speed = self.images * share / instances, _TRANSFORM_IMAGES_PER_SECOND
        return Span(images / speed.high, images / speed.low)

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
        )


def _sum(spans: Sequence[Span | None]) -> Span | None:
    known = [span for span in spans if span is not None]
    if len(known) < len(spans):
        return None
    return Span(sum(span.low for span in known), sum(span.high for span in known))


def _times(span: Span | None, factor: float) -> Span | None:
    return Span(span.low * factor, span.high * factor) if span else None
