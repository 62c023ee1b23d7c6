"""An estimate, for people to read."""

from math import ceil

from darkroom.backends.sagemaker.estimate import Estimate, JobEstimate, Limit
from darkroom.backends.sagemaker.throughput import TRANSFER, Span

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
