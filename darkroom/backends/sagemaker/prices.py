"""What an instance costs by the hour, from a dated table.

The package's table, prices.json, holds few rates and says where they come from. Those of
the AWS price list (price_list.py) lie in $DARKROOM_HOME/prices.json, which is asked first.
A price that neither knows is unknown: nothing is guessed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from darkroom.errors import UserError
from darkroom.files import workspace

Kind = Literal["training", "processing", "hosting", "transform"]
"""What an instance is used for; AWS lists a price for each."""


class RegionPrices(BaseModel):
    """The rates of one region."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: date
    source: str
    rates: dict[Kind, dict[str, Annotated[float, Field(gt=0)]]]
    """USD per hour by use and instance type."""


class PriceTable(BaseModel):
    """What prices.json holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = "USD per instance and hour, on demand"
    regions: dict[str, RegionPrices] = {}


@dataclass(frozen=True)
class Rate:
    """A price, and where it comes from."""

    usd_per_hour: float
    date: date
    source: str


def hourly_price(instance_type: str, *, region: str, kind: Kind) -> float | None:
    """USD for one instance and hour on demand; None where no table knows it.

    Raises:
        UserError: the refreshed table is damaged.
    """
    rate = find_rate(instance_type, region=region, kind=kind)
    return rate.usd_per_hour if rate else None


def find_rate(instance_type: str, *, region: str, kind: Kind) -> Rate | None:
    """As `hourly_price`, with the rate's date and source.

    Raises:
        UserError: the refreshed table is damaged.
    """
    for table in _tables():
        prices = table.regions.get(region)
        rate = prices.rates.get(kind, {}).get(instance_type) if prices else None
        if prices and rate:
            return Rate(usd_per_hour=rate, date=prices.date, source=prices.source)
    return None


def all_rates(*, region: str, kind: Kind) -> dict[str, float]:
    """USD per hour of every instance type that a table knows for the use.

    Raises:
        UserError: the refreshed table is damaged.
    """
    rates: dict[str, float] = {}
    for table in _tables():
        prices = table.regions.get(region)
        known = prices.rates.get(kind, {}) if prices else {}
        rates = {**known, **rates}
    return rates


def refreshed_path() -> Path:
    """Where refreshed prices lie: $DARKROOM_HOME/prices.json."""
    return workspace() / "prices.json"


def read_table(path: Path) -> PriceTable:
    """Read a table of prices.

    Raises:
        UserError: it is unreadable.
    """
    try:
        return PriceTable.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise UserError(
            f"the prices in {str(path)!r} cannot be read. Delete the file, then fetch them anew: "
            "python run.py check --stack sagemaker --refresh-prices"
        ) from error


def _tables() -> Iterator[PriceTable]:
    """The refreshed table, where there is one, before the package's."""
    refreshed = refreshed_path()
    if refreshed.is_file():
        yield read_table(refreshed)
    packaged = files("darkroom.backends.sagemaker").joinpath("prices.json")
    yield PriceTable.model_validate_json(packaged.read_text(encoding="utf-8"))
