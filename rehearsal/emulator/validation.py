"""What AWS would refuse, refused here, before anything is done."""

from collections.abc import Mapping
from typing import Any

from darkroom.backends.sagemaker.request_rules import problems
from rehearsal.emulator.errors import AwsError
from rehearsal.emulator.shapes import check_shape
from rehearsal.emulator.state import State


def check_request(operation: str, request: Mapping[str, Any], *, state: State) -> None:
    """Check a SageMaker request: the service model, AWS's further rules, buckets.

    Raises:
        AwsError: with AWS's code and wording; where several rules are broken, all are told.
    """
    check_shape("sagemaker", operation, request)
    found = problems(operation, request)
    if found:
        raise AwsError(found[0].code, "; ".join(problem.message for problem in found))
