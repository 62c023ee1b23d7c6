"""What an instance costs by the hour: from a dated table, which AWS's price list renews."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from darkroom.base.errors import UserError
from darkroom.base.files import workspace, write_text
from darkroom.config.sagemaker import SageMakerConfig
from darkroom.telemetry.system import TrainingPrices

if TYPE_CHECKING:
    from mypy_boto3_pricing import PricingClient


# --- prices ---

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
    packaged = files("darkroom.backends.sagemaker.costs").joinpath("prices.json")
    yield PriceTable.model_validate_json(packaged.read_text(encoding="utf-8"))


# --- price list ---
# Prices from the AWS price list, for the table that prices.py asks first.

_COMPONENTS: dict[str, Kind] = {
    "Training": "training",
    "Processing": "processing",
    "Hosting": "hosting",
    "Batch Transform": "transform",
}
"""What the price list calls the uses of an instance."""

_INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9]+")


def refresh_prices(path: Path, *, region: str, client: "PricingClient") -> PriceTable:
    """Ask the AWS price list for a region's rates and write them; other regions stay.

    Needs pricing:GetProducts. The price list itself is served in few regions only (such as
    us-east-1), for one of which the client is made; it knows the prices of all.

    Returns:
        What was written.

    Raises:
        UserError: the price list has nothing for the region, or `path` is damaged.
        botocore.exceptions.ClientError: AWS refuses.
    """
    rates = {
        kind: _listed(client, region=region, component=component)
        for component, kind in _COMPONENTS.items()
    }
    if not any(rates.values()):
        raise UserError(
            f"the AWS price list has no SageMaker prices for the region {region!r}. "
            "Write it as AWS does, such as 'us-east-1'."
        )
    fresh = RegionPrices(
        date=datetime.now(UTC).date(),
        source="the AWS price list (pricing:GetProducts of AmazonSageMaker)",
        rates=rates,
    )
    known = read_table(path).regions if path.is_file() else {}
    table = PriceTable(regions={**known, region: fresh})
    write_text(path, table.model_dump_json(indent=2) + "\n")
    return table


def _listed(client: "PricingClient", *, region: str, component: str) -> dict[str, float]:
    """Rates by instance type; where a type is listed twice, the higher one."""
    rates: dict[str, float] = {}
    pages = client.get_paginator("get_products").paginate(
        ServiceCode="AmazonSageMaker",
        Filters=[
            {"Type": "TERM_MATCH", "Field": "regionCode", "Value": region},
            {"Type": "TERM_MATCH", "Field": "component", "Value": component},
        ],
    )
    for page in pages:
        for name, rate in _rates(page["PriceList"]):
            rates[name] = max(rate, rates.get(name, 0.0))
    return dict(sorted(rates.items()))


def _rates(records: Iterable[str]) -> Iterable[tuple[str, float]]:
    """Instance types and hourly rates; what is no on-demand instance is left out."""
    for record in records:
        item = _PriceListItem.model_validate_json(record)
        name = item.product.attributes.type_of_instance
        rate = item.terms.hourly_usd
        if name and rate:
            yield name, rate


class _Record(BaseModel):
    """A part of a price list record; of its many fields only those that are needed."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Attributes(_Record):
    instance_name: str = Field(default="", alias="instanceName")
    usage_type: str = Field(default="", alias="usagetype")

    @property
    def type_of_instance(self) -> str:
        """From `instanceName`, else from the end of `usagetype` (USE1-Train:ml.m5.large)."""
        for text in (self.instance_name, self.usage_type.rpartition(":")[2]):
            if _INSTANCE.fullmatch(text):
                return text
        return ""


class _Dimension(_Record):
    unit: str = ""
    price: dict[str, float] = Field(default={}, alias="pricePerUnit")


class _Offer(_Record):
    dimensions: dict[str, _Dimension] = Field(default={}, alias="priceDimensions")


class _Terms(_Record):
    on_demand: dict[str, _Offer] = Field(default={}, alias="OnDemand")

    @property
    def hourly_usd(self) -> float:
        """The highest hourly rate: a free tier is listed as a price of 0 beside it."""
        return max(
            (
                dimension.price.get("USD", 0.0)
                for offer in self.on_demand.values()
                for dimension in offer.dimensions.values()
                if dimension.unit.lower() in ("hrs", "hours", "hour")
            ),
            default=0.0,
        )


class _Product(_Record):
    attributes: _Attributes


class _PriceListItem(_Record):
    product: _Product
    terms: _Terms


# --- training prices ---
# What a training's machine costs, for the money part of its report.

_REGION = "us-east-1"
"""Whose prices stand for a training that ran on no AWS machine."""


def training_prices(jobs: SageMakerConfig | None) -> TrainingPrices:
    """Rates by instance type, and which one was used; of a local training, none was."""
    region = os.environ.get("AWS_REGION", _REGION) if jobs else _REGION
    return TrainingPrices(
        instance_type=jobs.training.instance_type if jobs else None,
        usd_per_hour=all_rates(region=region, kind="training"),
    )
