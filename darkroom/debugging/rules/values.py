"""Rules over the values of tensors (not finite, all zero, no change) and over whole runs."""

import re
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from darkroom.debugging.rules.rule import NotApplicableError, Rule, always
from darkroom.debugging.rules.series import at_steps, first_run, rate_shares
from darkroom.telemetry.evidence import Evidence, Kind, Statistics, TensorSource
from darkroom.telemetry.findings import Hit

# --- selection of hits ---
# Which tensors a rule looks at.

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


# --- values ---

_ANY: tuple[Kind, ...] = (
    *("input", "activation_input", "activation", "logits", "gradient", "weight", "bias"),
)


def exploding_tensor(
    evidence: Evidence,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    only_nan: bool = False,
    gradient_persistence: int = 5,
) -> list[Hit]:
    """A tensor has elements that are NaN or infinite.

    SageMaker Debugger's ExplodingTensor. The earliest step comes first, and within it what
    the step computes first.

    Args:
        collection_names: such as 'weights, gradients'; null: all.
        tensor_regex: sought in 'kind/name'; null: all.
        only_nan: infinite elements are no matter.
        gradient_persistence: recorded steps in a row, if the loss is a number: float16's
            loss scale begins too high, and the first gradients overflow by design
            (Micikevicius et al., Mixed precision training, ICLR 2018). 1 in AWS' rule.
    """
    hits = []
    for kind, name in select(
        evidence,
        collection_names=collection_names,
        tensor_regex=tensor_regex,
        otherwise=_ANY,
    ):
        statistics = evidence.tensors.statistics(name, kind=kind)
        bad = statistics["nan_share"] > 0
        if not only_nan:
            bad = bad | (statistics["infinite_share"] > 0)
        persistence = gradient_persistence if kind == "gradient" else 1
        at = _first_bad(evidence, statistics, bad=bad, persistence=persistence)
        if at is not None:
            hits.append(_not_finite(kind, name, statistics=statistics, at=at))
    return sorted(hits, key=lambda hit: hit.step or 0)


def all_zero(
    evidence: Evidence,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    threshold: float = 100.0,
    persistence: int = 3,
) -> list[Hit]:
    """`threshold` % or more of a tensor are zero.

    SageMaker Debugger's AllZero, which has to be told of which tensors. By default of
    weights: biases begin at zero by design; gradients that are zero are the matter of
    layer_not_learning.

    Args:
        collection_names: such as 'weights, gradients'; null: weights.
        tensor_regex: sought in 'kind/name'.
        threshold: percent.
        persistence: recorded steps in a row; ours: some heads begin at zero by design, and
            leave it with the first step. 1 in AWS' rule.
    """
    hits = []
    for kind, name in select(
        evidence,
        collection_names=collection_names,
        tensor_regex=tensor_regex,
        otherwise=("weight",),
    ):
        statistics = evidence.tensors.statistics(name, kind=kind)
        at = first_run(100 * statistics["zero_share"] >= threshold, length=persistence)
        if at is not None:
            figures: dict[str, float | str] = {
                "zeros_percent": float(100 * statistics["zero_share"][at]),
                "threshold_percent": threshold,
            }
            hits.append(Hit(described(kind, name), int(statistics.steps[at]), figures))
    return sorted(hits, key=lambda hit: (hit.step or 0, -float(hit.figures["zeros_percent"])))


def tensor_variance(
    evidence: Evidence,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    max_threshold: float | None = None,
    min_threshold: float | None = None,
) -> list[Hit]:
    """The variance of a tensor leaves a range.

    SageMaker Debugger's TensorVariance; its documentation's example has 10 and 1e-5.

    Args:
        collection_names: such as 'weights, gradients'; null: weights.
        tensor_regex: sought in 'kind/name'.
        max_threshold: of the variance; null: any.
        min_threshold: of the variance; null: any.
    """
    if max_threshold is None and min_threshold is None:
        raise NotApplicableError("neither max_threshold nor min_threshold is given")
    low = -np.inf if min_threshold is None else min_threshold
    high = np.inf if max_threshold is None else max_threshold
    hits = []
    for kind, name in select(
        evidence,
        collection_names=collection_names,
        tensor_regex=tensor_regex,
        otherwise=("weight",),
    ):
        statistics = evidence.tensors.statistics(name, kind=kind)
        variance = statistics["std"] ** 2
        at = first_run((variance > high) | (variance < low), length=1)
        if at is not None:
            figures: dict[str, float | str] = {
                "variance": float(variance[at]),
                "min_threshold": low,
                "max_threshold": high,
            }
            hits.append(Hit(described(kind, name), int(statistics.steps[at]), figures))
    return sorted(hits, key=lambda hit: hit.step or 0)


def unchanged_tensor(
    evidence: Evidence,
    *,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    num_steps: int = 3,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
    span: int = 20,
    rate_share: float = 0.01,
) -> list[Hit]:
    """numpy.allclose calls a tensor equal over the last `num_steps` recorded steps.

    SageMaker Debugger's UnchangedTensor, which has to be told of which tensors; by default
    of trainable weights.

    Args:
        collection_names: such as 'weights, biases'; null: trainable weights.
        tensor_regex: sought in 'kind/name'.
        num_steps: values that are compared, one with the next.
        rtol: numpy.allclose's; other than 1e-5 it needs whole tensors.
        atol: numpy.allclose's.
        equal_nan: whether NaN equals NaN; true needs whole tensors.
        span: training steps that these values span at least; ours: in the first steps of a
            warm-up hardly anything moves. 0 in AWS' rule.
        rate_share: of the peak learning rate; steps below it are left out, ours: at the end
            of the decay hardly anything moves. 0 in AWS' rule.
    """
    chosen = collection_names is not None or tensor_regex is not None
    hits = []
    for kind, name in select(
        evidence,
        collection_names=collection_names,
        tensor_regex=tensor_regex,
        otherwise=("weight",),
    ):
        if not chosen and not is_trainable(evidence, name):
            continue
        statistics = evidence.tensors.statistics(name, kind=kind)
        if rtol == 1e-5 and not equal_nan:
            equal = statistics["change_excess"] <= atol
        else:
            equal = _equal(evidence, kind, name, rtol=rtol, atol=atol, equal_nan=equal_nan)
        equal &= rate_shares(evidence, wanted=statistics.steps) >= rate_share
        at = _unchanged_at(statistics, equal=equal, num_steps=num_steps, span=span)
        if at is not None:
            figures: dict[str, float | str] = {
                "steps": float(num_steps),
                "unchanged_since_step": float(statistics.steps[at - num_steps + 1]),
            }
            hits.append(Hit(described(kind, name), int(statistics.steps[at]), figures))
    return sorted(hits, key=lambda hit: hit.step or 0)


def _unchanged_at(
    statistics: Statistics, *, equal: NDArray[np.bool_], num_steps: int, span: int
) -> int | None:
    """The first look that ends so many equal ones over so many steps."""
    steps = statistics.steps
    for at in range(num_steps - 1, len(steps)):
        first = at - num_steps + 1
        if equal[first + 1 : at + 1].all() and steps[at] - steps[first] >= span:
            return at
    return None


def _equal(
    evidence: Evidence, kind: Kind, name: str, *, rtol: float, atol: float, equal_nan: bool
) -> NDArray[np.bool_]:
    """By look, whether the whole tensor equals the one before."""
    steps = evidence.tensors.statistics(name, kind=kind).steps.tolist()
    values = [evidence.tensors.value(name, kind=kind, step=step) for step in steps]
    if any(value is None for value in values):
        raise NotApplicableError("other tolerances need whole tensors (recording.tensors: full)")
    arrays = [np.asarray(value, dtype=np.float64) for value in values]
    pairs = zip(arrays[1:], arrays, strict=False)
    later = [np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan) for a, b in pairs]
    return np.array([False, *later][: len(arrays)], dtype=np.bool_)


def _first_bad(
    evidence: Evidence, statistics: Statistics, *, bad: NDArray[np.bool_], persistence: int
) -> int | None:
    """The first look at which the loss is bad too, or of so many in a row."""
    log = evidence.steps
    losses = at_steps(log, np.isfinite(log.loss).astype(np.float64), wanted=statistics.steps)
    with_the_loss = first_run(bad & (losses == 0), length=1)
    lasting = first_run(bad, length=persistence)
    found = [at for at in (with_the_loss, lasting) if at is not None]
    return min(found, default=None)


def _not_finite(kind: Kind, name: str, *, statistics: Statistics, at: int) -> Hit:
    figures: dict[str, float | str] = {
        "nan_percent": float(100 * statistics["nan_share"][at]),
        "infinite_percent": float(100 * statistics["infinite_share"][at]),
    }
    return Hit(described(kind, name), int(statistics.steps[at]), figures)


VALUE_RULES = (
    Rule(
        name="exploding_tensor",
        title="Numbers in the network are no longer finite",
        severity="error",
        meaning="NaN and infinity spread to every weight with the next step; nothing recovers.",
        advice=always(
            "look at the named tensor: what is computed before it was still finite",
            "lower training.learning_rate, or lengthen training.warmup_epochs",
            "set training.mixed_precision to 'off'",
        ),
        evaluate=exploding_tensor,
    ),
    Rule(
        name="all_zero",
        title="Weights are all zero",
        severity="error",
        meaning=(
            "A layer of zeros puts out nothing, and passes no gradient on: neither it nor the "
            "layers around it can leave zero."
        ),
        advice=always(
            "use random or trained initial weights: model.weights 'none' or 'imagenet'",
            "check the file that model.weights names, if it is one",
        ),
        evaluate=all_zero,
    ),
    Rule(
        name="tensor_variance",
        title="The variance of a tensor is out of range",
        severity="warning",
        meaning="The values are spread more, or less, than you said is sound.",
        advice=always("look at the named tensor, and at the layer before it"),
        evaluate=tensor_variance,
    ),
    Rule(
        name="unchanged_tensor",
        title="Weights do not change",
        severity="note",
        meaning="The optimiser has these weights, yet they stay as they are.",
        advice=always(
            "raise training.learning_rate, if all weights stay",
            "see whether a gradient reaches the named layer (layer_not_learning says so)",
        ),
        evaluate=unchanged_tensor,
    ),
)


# --- the run as a whole ---
# Standing still, or unlike another.

_COMPARED = ("mean", "std", "minimum", "maximum")


def stalled_training(evidence: Evidence, *, threshold: float = 1800.0) -> list[Hit]:
    """Nothing new was recorded for `threshold` seconds.

    SageMaker Debugger's StalledTrainingRule and its threshold. While the training runs, up to
    now; after its end, between any two steps, whatever lay between them.

    Args:
        threshold: seconds.
    """
    started = evidence.steps.started
    if not len(started):
        raise NotApplicableError("no steps were recorded")
    moments = started if evidence.ended else np.append(started, max(evidence.now, started[-1]))
    gaps = np.diff(moments)
    if not (gaps > threshold).any():
        return []
    at = int(gaps.argmax())
    figures: dict[str, float | str] = {"seconds": float(gaps[at]), "threshold": threshold}
    return [Hit("", int(evidence.steps.step[at]), figures)]


def similar_across_runs(
    evidence: Evidence,
    *,
    other_trials: str | None = None,
    collection_names: str | None = None,
    tensor_regex: str | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-8,
) -> list[Hit]:
    """A tensor differs from another run's at the same step.

    SageMaker Debugger's SimilarAcrossRuns: a check that a run repeats an earlier one. Whole
    tensors are compared where both were kept, else their mean, deviation, least and largest.

    Args:
        other_trials: the earlier run's recording, which `Evidence.other` holds.
        collection_names: such as 'weights, gradients'; null: weights.
        tensor_regex: sought in 'kind/name'.
        rtol: numpy.allclose's, whose defaults these are.
        atol: likewise.
    """
    if evidence.other is None:
        raise NotApplicableError("other_trials names no other run")
    hits = []
    for kind, name in select(
        evidence,
        collection_names=collection_names,
        tensor_regex=tensor_regex,
        otherwise=("weight",),
    ):
        step = _first_difference(evidence, kind, name, other=evidence.other, rtol=rtol, atol=atol)
        if step is not None:
            hits.append(Hit(described(kind, name), step, {"other_run": other_trials or ""}))
    return sorted(hits, key=lambda hit: hit.step or 0)


def _first_difference(
    evidence: Evidence, kind: Kind, name: str, *, other: TensorSource, rtol: float, atol: float
) -> int | None:
    """The first step that both recorded, at which they differ."""
    ours = evidence.tensors.statistics(name, kind=kind)
    theirs = other.statistics(name, kind=kind)
    common, at, there = np.intersect1d(ours.steps, theirs.steps, return_indices=True)
    for step, i, j in zip(common.tolist(), at.tolist(), there.tolist(), strict=True):
        pair = [one.value(name, kind=kind, step=step) for one in (evidence.tensors, other)]
        if any(value is None for value in pair):
            pair = [
                np.array([statistics[column][row] for column in _COMPARED])
                for statistics, row in ((ours, i), (theirs, j))
            ]
        first, second = (np.asarray(value, dtype=np.float64) for value in pair)
        if first.shape != second.shape or not np.allclose(
            first, second, rtol=rtol, atol=atol, equal_nan=True
        ):
            return int(step)
    return None


RUN_RULES = (
    Rule(
        name="stalled_training",
        title="The training stood still",
        severity="warning",
        meaning="No step was finished for long: a process hangs, or waits for data.",
        advice=always(
            "look at what the machine did in that time: disk, network, other programs",
            "if a process hangs, try training.processes: 1",
        ),
        evaluate=stalled_training,
    ),
    Rule(
        name="similar_across_runs",
        title="The run differs from the other one",
        severity="warning",
        meaning="It was to repeat the other run, and took another way from the named step on.",
        advice=always(
            "compare seed, data and hyperparameters of both runs",
            "compare versions and machines: other kernels round otherwise",
        ),
        evaluate=similar_across_runs,
    ),
)
