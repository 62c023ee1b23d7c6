"""Which tensors a rule looks at."""

import re
from typing import get_args

from darkroom.rules.evidence import Evidence, Kind, Statistics
from darkroom.rules.rule import NotApplicableError

KINDS: tuple[Kind, ...] = (
    "input",
    "activation_input",
    "activation",
    "logits",
    "loss",
    "gradient",
    "weight",
    "bias",
    "labels",
)
"""In the order in which a training step computes them."""
_COLLECTIONS: dict[str, Kind] = {
    "weights": "weight",
    "biases": "bias",
    "gradients": "gradient",
    "losses": "loss",
    "relu_input": "activation_input",
    "relu_output": "activation",
}
"""SageMaker Debugger's collections."""
Selected = list[tuple[Kind, str]]


def collection_kinds(collection_names: str) -> set[Kind]:
    """The kinds that 'weights, gradients' stands for; smdebug's names and ours are known.

    Raises:
        NotApplicableError: none of them is known.
    """
    names = [name.strip() for name in collection_names.split(",")]
    kinds = {_COLLECTIONS.get(name, name) for name in names}
    known: set[Kind] = {kind for kind in KINDS if kind in kinds}
    if not known:
        allowed = ", ".join(sorted({*_COLLECTIONS, *get_args(Kind)}))
        raise NotApplicableError(
            f"no collection is known of {collection_names!r}: name some of {allowed}"
        )
    return known


def select(
    evidence: Evidence,
    *,
    collection_names: str | None,
    tensor_regex: str | None,
    otherwise: tuple[Kind, ...] = (),
) -> Selected:
    """Tensors of the collections and those that the expression finds, in KINDS' order.

    Args:
        collection_names: separated by commas.
        tensor_regex: sought in 'kind/name', such as 'gradient/layer1.0.conv1.weight'.
        otherwise: kinds, where neither is given.

    Raises:
        NotApplicableError: nothing of the kind was recorded.
    """
    kinds: set[Kind] = collection_kinds(collection_names) if collection_names else set()
    if not (collection_names or tensor_regex):
        kinds = {*otherwise}
    selected = [
        (kind, name)
        for kind in KINDS
        for name in evidence.tensors.names(kind)
        if kind in kinds or (tensor_regex and re.search(tensor_regex, f"{kind}/{name}"))
    ]
    if not selected:
        wanted = collection_names or tensor_regex or " and ".join(otherwise)
        raise NotApplicableError(f"no tensors were recorded of {wanted!r}")
    return selected


def is_trainable(evidence: Evidence, name: str) -> bool:
    """Whether the optimiser has a parameter; True where the facts do not say."""
    return evidence.facts.trainable.get(name, True)


def trainable_weights(evidence: Evidence) -> dict[str, Statistics]:
    """Weights that the optimiser has and that were looked at, biases not among them.

    Raises:
        NotApplicableError: there are none.
    """
    weights = {
        name: evidence.tensors.statistics(name, kind="weight")
        for name in evidence.tensors.names("weight")
        if is_trainable(evidence, name)
    }
    if not weights:
        raise NotApplicableError("no trainable weights were recorded")
    return weights


def described(kind: Kind, name: str) -> str:
    """A tensor as a person would name it."""
    if kind in ("weight", "bias", "input", "logits", "loss", "labels"):
        return name
    return f"{kind.replace('_', ' ')} of {name}"
