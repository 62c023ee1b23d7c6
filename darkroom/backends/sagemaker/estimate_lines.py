"""An estimate, for people to read."""

from darkroom.backends.sagemaker.estimate import Estimate, JobEstimate
from darkroom.backends.sagemaker.throughput import Span

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
    return [*table, _total(estimate), *_kept_endpoint(estimate), *_basis(estimate)]


def duration(seconds: Span | None) -> str:
    """'12–50 min' or '1.5–4.0 h'."""
    if seconds is None:
        return "unknown time"
    if seconds.high >= 2 * 3600:
        return f"{seconds.low / 3600:.1f}–{seconds.high / 3600:.1f} h"
    return f"{max(1, round(seconds.low / 60))}–{max(1, round(seconds.high / 60))} min"


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
