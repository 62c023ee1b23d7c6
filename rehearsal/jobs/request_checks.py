"""What a training or processing request may not ask for here: state and abilities.

Rules that need nothing but the request are in darkroom's request_rules.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from rehearsal.emulator.errors import not_executed
from rehearsal.emulator.state import State
from rehearsal.jobs.container import unknown_image


def check_training_request(request: Mapping[str, Any], *, state: State) -> None:
    """Refuse what AWS would do and the rehearsal cannot.

    Raises:
        AwsError: NotExecutedInRehearsal, with all reasons.
    """
    reasons = [
        *_algorithm(request["AlgorithmSpecification"], state=state),
        *(r for c in request.get("InputDataConfig", ()) for r in _channel(c, request)),
        *_extras(request),
    ]
    if reasons:
        raise not_executed("this training job", why="; ".join(reasons))


def _algorithm(specification: Mapping[str, Any], *, state: State) -> list[str]:
    if image := specification.get("TrainingImage"):
        return [why] if (why := unknown_image(image, state=state)) else []
    return ["algorithms of the marketplace (AlgorithmName) are not here: name a TrainingImage"]


def _channel(channel: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    name = channel["ChannelName"]
    mode = channel.get("InputMode", request["AlgorithmSpecification"]["TrainingInputMode"])
    source = channel["DataSource"].get("S3DataSource")
    reasons = []
    if name in (".", ".."):
        reasons.append(f"channel {name!r}: that is no name of a folder")
    if mode == "Pipe":
        reasons.append(f"channel {name!r}: Pipe mode; use File or FastFile")
    if source is None:
        return [*reasons, f"channel {name!r}: only S3DataSource is read"]
    if source["S3DataType"] not in ("S3Prefix", "ManifestFile"):
        reasons.append(f"channel {name!r}: {source['S3DataType']}; use S3Prefix or ManifestFile")
    if channel.get("RecordWrapperType") == "RecordIO":
        reasons.append(f"channel {name!r}: records are not wrapped as RecordIO")
    return reasons


def _extras(request: Mapping[str, Any]) -> list[str]:
    reasons = []
    for member in ("CheckpointConfig", "DebugHookConfig", "TensorBoardOutputConfig"):
        place = request.get(member, {}).get("LocalPath", "/opt/ml/any")
        if not place.startswith("/opt/ml/") or ".." in PurePosixPath(place).parts:
            reasons.append(f"{member}.LocalPath {place!r} is not below /opt/ml")
    return reasons
