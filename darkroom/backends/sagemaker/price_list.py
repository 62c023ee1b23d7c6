"""Prices from the AWS price list, for the table that prices.py asks first."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from darkroom.backends.sagemaker.prices import Kind, PriceTable, RegionPrices, read_table
from darkroom.errors import UserError
from darkroom.files import write_text

if TYPE_CHECKING:
    from mypy_boto3_pricing import PricingClient

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
