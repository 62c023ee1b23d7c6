"""What AWS would refuse, refused here, before anything is done."""

from collections.abc import Mapping
from typing import Any

from rehearsal.emulator.state import State


def check_request(operation: str, request: Mapping[str, Any], *, state: State) -> None:
    """Check a SageMaker request against botocore's service model, and AWS's further rules.

    Raises:
        AwsError: with AWS's code and wording.
    """
