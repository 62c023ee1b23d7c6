"""Whether the account may use as many instances at once as the run wants."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from darkroom.backends.sagemaker.preflight.demand import Demand
from darkroom.backends.sagemaker.preflight.findings import Finding, survive

if TYPE_CHECKING:
    from mypy_boto3_service_quotas import ServiceQuotasClient

_SUBJECT = "quotas"


def check_quotas(
    demands: Sequence[Demand], *, region: str, client: "ServiceQuotasClient"
) -> list[Finding]:
    """Compare the demands with the quotas that apply to the account.

    What other jobs of the account use meanwhile is not known.
    """

    def check() -> list[Finding]:
        quotas = _applied(client)
        found = [_compare(demand, quotas=quotas, region=region) for demand in demands]
        if all(finding.level == "ok" for finding in found):
            return [Finding(_SUBJECT, "ok", " ".join(finding.text for finding in found))]
        return [finding for finding in found if finding.level != "ok"]

    return survive(check, subject=_SUBJECT, action="servicequotas:ListServiceQuotas")


def _applied(client: "ServiceQuotasClient") -> dict[str, tuple[float, str]]:
    """Value and code of each of SageMaker's quotas, by name."""
    pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    return {
        quota["QuotaName"]: (quota["Value"], quota["QuotaCode"])
        for page in pages
        for quota in page["Quotas"]
    }


def _compare(demand: Demand, *, quotas: dict[str, tuple[float, str]], region: str) -> Finding:
    if demand.quota_name not in quotas:
        text = f"Service Quotas lists no {demand.quota_name!r}; {demand.count} is wanted."
        return Finding(_SUBJECT, "note", text)
    value, code = quotas[demand.quota_name]
    if demand.count <= value:
        return Finding(_SUBJECT, "ok", f"{demand.quota_name}: {demand.count} of {value:g}.")
    text = (
        f"{demand.quota_name!r} is {value:g} in {region}, the run wants {demand.count} at once "
        f"({demand.setting}). Ask for more (aws service-quotas request-service-quota-increase "
        f"--service-code sagemaker --quota-code {code} --desired-value {demand.count} "
        f"--region {region}; it may take days), or configure fewer or other instances."
    )
    return Finding(_SUBJECT, "problem", text)
