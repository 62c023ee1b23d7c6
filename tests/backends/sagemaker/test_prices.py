"""Prices: where they come from, and how they are refreshed."""

import json
from datetime import date
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber

from darkroom.backends.sagemaker.costs.prices import (
    find_rate,
    hourly_price,
    refresh_prices,
    refreshed_path,
)
from darkroom.base.errors import UserError

COMPONENTS = ["Training", "Processing", "Hosting", "Batch Transform"]


def listed(instance_type: str, usd: str, *, component: str, unit: str = "Hrs") -> str:
    """A record as the price list has it: a JSON string, of which most fields are not needed."""
    prefix = {"Training": "Train", "Hosting": "Host"}.get(component, "Tsform")
    return json.dumps(
        {
            "product": {
                "productFamily": "ML Instance",
                "attributes": {
                    "regionCode": "eu-west-1",
                    "servicecode": "AmazonSageMaker",
                    "instanceName": instance_type,
                    "component": component,
                    "usagetype": f"EU-{prefix}:{instance_type}",
                    "operation": "RunInstance",
                    "vCpu": "4",
                    "memory": "16 GiB",
                    "gpu": "N/A",
                    "servicename": "Amazon SageMaker",
                },
                "sku": "227NVD6RYPYR7N6P",
            },
            "serviceCode": "AmazonSageMaker",
            "terms": {
                "OnDemand": {
                    "227NVD6RYPYR7N6P.JRTCKXETXF": {
                        "priceDimensions": {
                            "227NVD6RYPYR7N6P.JRTCKXETXF.6YS6EN2CT7": {
                                "unit": unit,
                                "endRange": "Inf",
                                "description": f"${usd} per {component} {instance_type} hour",
                                "appliesTo": [],
                                "rateCode": "227NVD6RYPYR7N6P.JRTCKXETXF.6YS6EN2CT7",
                                "beginRange": "0",
                                "pricePerUnit": {"USD": usd},
                            }
                        },
                        "sku": "227NVD6RYPYR7N6P",
                        "effectiveDate": "2026-11-01T00:00:00Z",
                        "offerTermCode": "JRTCKXETXF",
                        "termAttributes": {},
                    }
                }
            },
            "version": "20261118000000",
            "publicationDate": "2026-11-18T00:00:00Z",
        }
    )


class PriceList:
    """Answers of the price list, in AWS's own shape, each to the request that it is for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        self.client = boto3.client("pricing", region_name="us-east-1")
        self.stubber = Stubber(self.client)
        self.stubber.activate()

    def answers(self, component: str, pages: list[list[str]], *, region: str) -> None:
        for number, records in enumerate(pages):
            request = {
                "ServiceCode": "AmazonSageMaker",
                "Filters": [
                    {"Type": "TERM_MATCH", "Field": "regionCode", "Value": region},
                    {"Type": "TERM_MATCH", "Field": "component", "Value": component},
                ],
            }
            if number:
                request["NextToken"] = f"page {number}"
            more = {"NextToken": f"page {number + 1}"} if number + 1 < len(pages) else {}
            answer = {"FormatVersion": "aws_v1", "PriceList": records, **more}
            self.stubber.add_response("get_products", answer, request)

    def answers_nothing(self, *, region: str, but: tuple[str, ...] = ()) -> None:
        for component in COMPONENTS:
            if component not in but:
                self.answers(component, [[]], region=region)


@pytest.fixture
def price_list(monkeypatch) -> PriceList:
    return PriceList(monkeypatch)


def test_the_packaged_prices_say_when_and_where_they_come_from() -> None:
    rate = find_rate("ml.m5.xlarge", region="us-east-1", kind="training")
    assert rate
    assert rate.usd_per_hour == 0.23
    assert rate.date == date(2026, 11, 20)
    assert "not confirmed" in rate.source


@pytest.mark.parametrize(
    ("instance_type", "region"), [("ml.p5.48xlarge", "us-east-1"), ("ml.m5.xlarge", "eu-west-1")]
)
def test_a_price_that_no_table_has_is_unknown_not_guessed(instance_type: str, region: str) -> None:
    assert hourly_price(instance_type, region=region, kind="training") is None


def test_refreshed_prices_take_precedence_and_the_package_fills_the_gaps(price_list) -> None:
    training = listed("ml.m5.xlarge", "0.2570000000", component="Training")
    price_list.answers("Training", [[training]], region="us-east-1")
    price_list.answers_nothing(region="us-east-1", but=("Training",))
    refresh_prices(refreshed_path(), region="us-east-1", client=price_list.client)
    assert hourly_price("ml.m5.xlarge", region="us-east-1", kind="training") == 0.257
    assert hourly_price("ml.g5.xlarge", region="us-east-1", kind="training") == 1.408


def test_all_pages_and_all_uses_are_read(price_list) -> None:
    for component in COMPONENTS:
        pages = [
            [listed("ml.m5.large", "0.1280000000", component=component)],
            [listed("ml.c5.large", "0.1150000000", component=component)],
        ]
        price_list.answers(component, pages, region="eu-west-1")
    refresh_prices(refreshed_path(), region="eu-west-1", client=price_list.client)
    price_list.stubber.assert_no_pending_responses()
    for kind in ("training", "processing", "hosting", "transform"):
        assert hourly_price("ml.m5.large", region="eu-west-1", kind=kind) == 0.128
        assert hourly_price("ml.c5.large", region="eu-west-1", kind=kind) == 0.115


def test_a_free_tier_and_what_is_not_billed_by_the_hour_are_no_rates(price_list) -> None:
    records = [
        listed("ml.m5.xlarge", "0.2300000000", component="Training"),
        listed("ml.m5.xlarge", "0.0000000000", component="Training"),
        listed("ml.c5.xlarge", "0.0000000000", component="Training"),
        listed("ml.c6i.xlarge", "0.1400000000", component="Training", unit="GB"),
        listed("Any", "0.1000000000", component="Training"),
    ]
    price_list.answers("Training", [records], region="eu-west-1")
    price_list.answers_nothing(region="eu-west-1", but=("Training",))
    table = refresh_prices(refreshed_path(), region="eu-west-1", client=price_list.client)
    assert table.regions["eu-west-1"].rates["training"] == {"ml.m5.xlarge": 0.23}


def test_refreshing_one_region_keeps_the_others(price_list) -> None:
    for region in ("eu-west-1", "us-west-2"):
        hosting = listed("ml.m5.xlarge", "0.2500000000", component="Hosting")
        price_list.answers_nothing(region=region, but=("Hosting", "Batch Transform"))
        price_list.answers("Hosting", [[hosting]], region=region)
        price_list.answers("Batch Transform", [[]], region=region)
        refresh_prices(refreshed_path(), region=region, client=price_list.client)
    for region in ("eu-west-1", "us-west-2"):
        assert hourly_price("ml.m5.xlarge", region=region, kind="hosting") == 0.25


def test_a_region_without_prices_is_the_users_mistake_and_nothing_is_written(price_list) -> None:
    price_list.answers_nothing(region="mars-1")
    with pytest.raises(UserError, match="no SageMaker prices for the region 'mars-1'"):
        refresh_prices(refreshed_path(), region="mars-1", client=price_list.client)
    assert not refreshed_path().exists()


def test_a_damaged_table_says_what_to_do(tmp_path: Path) -> None:
    refreshed_path().parent.mkdir(parents=True)
    refreshed_path().write_text('{"regions": {"us-east-1"')
    with pytest.raises(UserError, match="Delete the file"):
        hourly_price("ml.m5.xlarge", region="us-east-1", kind="training")
