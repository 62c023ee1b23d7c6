"""Everything about an account that is knowable before a run costs anything.

What waits on a network runs side by side. Each check survives being refused an answer: that
is a note, not a problem.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from darkroom.backends.sagemaker.aws_errors import explained
from darkroom.backends.sagemaker.preflight.account import Caller, check_region, find_caller
from darkroom.backends.sagemaker.preflight.bucket import check_bucket
from darkroom.backends.sagemaker.preflight.demand import demands_of
from darkroom.backends.sagemaker.preflight.findings import UNREADABLE, Check, Finding
from darkroom.backends.sagemaker.preflight.hosting import check_hosting
from darkroom.backends.sagemaker.preflight.image import check_image
from darkroom.backends.sagemaker.preflight.instances import check_instance_types
from darkroom.backends.sagemaker.preflight.managed_mlflow import check_managed_mlflow
from darkroom.backends.sagemaker.preflight.permissions import check_execution_role
from darkroom.backends.sagemaker.preflight.quotas import check_quotas
from darkroom.backends.sagemaker.preflight.requests import check_requests
from darkroom.backends.sagemaker.preflight.roles import check_passing, check_role
from darkroom.backends.sagemaker.preflight.servers import check_mlflow_url, check_zenml
from darkroom.backends.sagemaker.site import Site
from darkroom.config import Config
from darkroom.errors import DarkroomError

if TYPE_CHECKING:
    from darkroom.backends.sagemaker.clients import Clients

__all__ = ["Finding", "check_account"]

_THREADS = 8


def check_account(
    site: Site, *, config: Config, zenml_url: str, mlflow_uri: str, clients: "Clients"
) -> list[Finding]:
    """Look at all that a run on SageMaker needs; nothing is created or changed.

    Args:
        zenml_url: of the ZenML server, as jobs will use it.
        mlflow_uri: http(s) address of an MLflow server, or ARN of a managed one.
        clients: of `site.region`.

    Returns:
        What was found, problems with what to do; in the order in which it is needed.
    """
    found = [
        *check_region(site.region),
        *check_instance_types(demands_of(config)),
        *check_requests(site, config=config),
        *check_hosting(config),
    ]
    checks: list[Check] = [partial(check_zenml, zenml_url)]
    if not mlflow_uri.startswith("arn:"):
        checks.append(partial(check_mlflow_url, mlflow_uri))
    caller = _caller(clients)
    if isinstance(caller, Finding):
        return [caller, *found, *_together(checks)]
    welcome = Finding("credentials", "ok", f"{caller.arn} of account {caller.account}.")
    account = _account_checks(
        site, config=config, mlflow_uri=mlflow_uri, caller=caller, clients=clients
    )
    return [welcome, *found, *_together([*account, *checks])]


def _caller(clients: "Clients") -> Caller | Finding:
    """Who we are; where AWS will not say, nothing else of the account can be asked."""
    try:
        return find_caller(clients.sts)
    except (ClientError, BotoCoreError) as error:
        text = str(explained(error, what="the account"))
    except ResponseParserError:
        text = UNREADABLE
    except DarkroomError as error:
        text = str(error)
    return Finding("credentials", "problem", f"{text} What lies in the account was not checked.")


def _account_checks(
    site: Site, *, config: Config, mlflow_uri: str, caller: Caller, clients: "Clients"
) -> list[Check]:
    iam, region, role = clients.iam, site.region, "execution role"
    serverless = config.sagemaker.hosting.kind == "serverless"
    checks: list[Check] = [
        partial(check_role, site.role, subject=role, caller=caller, iam=iam),
        partial(check_passing, site.role, subject=role, caller=caller, iam=iam),
        partial(check_execution_role, site, caller=caller, iam=iam),
        partial(check_bucket, site.root, region=region, s3=clients.s3),
        partial(check_image, site.image, region=region, ecr=clients.ecr, serverless=serverless),
        partial(check_quotas, demands_of(config), region=region, client=clients.quotas),
    ]
    if site.endpoint_role:
        hosting = partial(check_role, site.endpoint_role, caller=caller, iam=iam)
        checks.append(partial(hosting, subject="endpoint role"))
    if mlflow_uri.startswith("arn:"):
        checks.append(
            partial(check_managed_mlflow, mlflow_uri, region=region, sagemaker=clients.sagemaker)
        )
    return checks


def _together(checks: Sequence[Check]) -> list[Finding]:
    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        answers = [threads.submit(check) for check in checks]
        return [finding for answer in answers for finding in answer.result()]
