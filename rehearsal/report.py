"""What a rehearsal would have been on AWS: jobs, minutes, money, and what was not covered."""

import io
import json
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from darkroom.backends.sagemaker.costs.prices import Kind, hourly_price
from darkroom.base.files import write_text
from rehearsal.emulator.records import Record, Records
from rehearsal.session import StandIn

_PRICED: dict[str, Kind] = {
    "training-job": "training",
    "processing-job": "processing",
    "transform-job": "transform",
    "endpoint": "hosting",
}
_FINE = ("Completed", "InService", "Deleted")
_REPORT = "report.txt"
_RECORDS = "records.json"
_WIDTH = 110


@dataclass(frozen=True)
class _Row:
    """A job or endpoint, as it would have run on AWS."""

    record: Record
    price: float | None
    """USD per hour and instance."""

    @property
    def minutes(self) -> float:
        """From request to end: AWS's start-up, and what the work took here."""
        return (self.record.startup_seconds + self.record.executed_seconds) / 60

    @property
    def cost(self) -> float | None:
        """USD of the time in which the program ran; AWS does not bill the start."""
        if self.price is None:
            return None
        return self.price * self.record.instance_count * self.record.executed_seconds / 3600


def write_report(running: StandIn) -> RenderableType:
    """Ask the emulator what happened; leave it in the stand-in's folder, and return it to show."""
    records = read_records(running)
    folder = Path(running.folder)
    write_text(folder / _RECORDS, records.model_dump_json(indent=1))
    shown = render(records, folder=folder)
    console = Console(width=_WIDTH, record=True, file=io.StringIO())
    console.print(shown)
    write_text(folder / _REPORT, console.export_text())
    return shown


def read_records(running: StandIn) -> Records:
    """What the emulator has recorded."""
    request = urllib.request.Request(  # noqa: S310 - our own address on the loopback
        f"{running.aws}/_rehearsal/records",
        headers={"Authorization": f"Bearer {running.environment()['AWS_ACCESS_KEY_ID']}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return Records.model_validate(json.load(answer))


def render(records: Records, *, folder: Path) -> RenderableType:
    """For people."""
    rows = [
        _Row(
            record,
            price=hourly_price(
                record.instance_type, region=records.region, kind=_PRICED[record.kind]
            ),
        )
        for record in records.resources
        if record.kind in _PRICED
    ]
    return Group(
        Text("\nOn AWS this would have been", style="bold"),
        _table(rows),
        _total(rows),
        *_notes(records),
        Text(f"Records and logs of every job: {folder}", style="dim"),
    )


def _table(rows: Iterable[_Row]) -> Table:
    table = Table()
    table.add_column("job or endpoint", overflow="fold")
    table.add_column("instances", overflow="fold")
    for column in ("starts in", "ran", "cost"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        record = row.record
        spot = ", spot" if record.spot else ""
        failed = "" if record.status in _FINE else f" ({record.status})"
        table.add_row(
            record.name + failed,
            f"{record.instance_count} × {record.instance_type}{spot}",
            f"{record.startup_seconds:.0f} s",
            f"{record.executed_seconds:.0f} s",
            "unknown" if row.cost is None else f"${row.cost:.4f}",
        )
    return table


def _total(rows: list[_Row]) -> Text:
    known = [row.cost for row in rows if row.cost is not None]
    unknown = len(rows) - len(known)
    minutes = sum(row.minutes for row in rows)
    text = (
        f"{len(rows)} jobs and endpoints, {minutes:.0f} minutes one after the other, about "
        f"${sum(known):.2f} by the time that the work took on this machine: an estimate."
    )
    return Text(text + (f" The price of {unknown} is not known." if unknown else ""))


def _notes(records: Records) -> Iterable[Text]:
    if records.faults_applied:
        struck = Counter(str(fault["name"]) for fault in records.faults_applied)
        yield Text(
            "Faults that struck: " + ", ".join(f"{n} × {name}" for name, n in struck.items())
        )
    if records.mistakes:
        yield Text(
            f"{len(records.mistakes)} mistakes of the rehearsal's own; please report them",
            style="red",
        )
    if records.walls:
        yield Text("Walls: " + "; ".join(records.walls), style="dim")
    if records.walls_missing:
        yield Text(
            "Walls that this machine does not allow, so that they did not stand: "
            + "; ".join(records.walls_missing),
            style="yellow",
        )
    if records.without_effect:
        yield Text("Had no effect here: " + "; ".join(records.without_effect), style="dim")
    yield Text("Not covered: " + "; ".join(records.not_covered), style="dim")
