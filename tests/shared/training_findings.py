"""What a diagnosis of tests/shared/training_evidence.py could have said."""

from dataclasses import dataclass

from darkroom.telemetry.findings import Diagnosis, Finding, Plot, RuleOutcome
from darkroom.telemetry.operators import OperatorTable, OperatorTime


def finding(**changes: object) -> Finding:
    """What a rule could have said of `vanishing`."""
    steps = tuple(float(step) for step in range(0, 1200, 25))
    return Finding.model_validate(
        {
            "rule": "vanishing_gradient",
            "title": "Gradients vanish",
            "severity": "error",
            "action": "warn",
            "where": "features.0.0.weight",
            "step": 425,
            "epoch": 3,
            "evidence": {"mean |gradient|": 3.1e-9, "threshold": 1e-7, "layers": "61 of 94"},
            "meaning": "The first layers get gradients so small that they do not learn. What they "
            "see of the images stays as it was at the start.",
            "advice": (
                "Start from pretrained weights: model.weights: imagenet",
                "Raise training.learning_rate from 0.001 to 0.003",
                "Use an architecture with residual connections, such as resnet18",
            ),
            "plot": Plot(
                x_label="step",
                y_label="mean |gradient|",
                x=steps,
                lines={
                    "features.0.0": tuple(1e-4 * 10 ** (-step / 200) for step in steps),
                    "classifier.3": tuple(1e-2 * 10 ** (-step / 2000) for step in steps),
                },
                threshold=1e-7,
                log=True,
            ),
            "occurrences": 61,
            **changes,
        }
    )


def diagnosis(*, with_findings: bool = True) -> Diagnosis:
    """Five findings, or none, and what came of the rules."""
    found = (
        finding(),
        finding(
            rule="overfitting",
            title="The network learns the training images by heart",
            severity="warning",
            where="",
            step=None,
            epoch=5,
            occurrences=1,
            evidence={"validation loss over its least": 1.32, "threshold": 1.1},
        ),
        finding(rule="dying_units", title="Units die", severity="warning", step=430, epoch=3),
        finding(
            rule="data_wait",
            title="Training waits for data",
            severity="warning",
            where="",
            step=0,
            epoch=1,
            plot=None,
            evidence={"waiting, share of the time": 0.45, "threshold": 0.2},
        ),
        finding(rule="class_imbalance", title="Classes are unequal", severity="note", step=None),
    )
    outcomes = [
        RuleOutcome(rule=one.rule, title=one.title, outcome="found", parameters={"threshold": 1e-7})
        for one in found
    ]
    others = [
        RuleOutcome(rule="exploding_tensor", title="Values explode", outcome="clear"),
        RuleOutcome(
            rule="gpu_idle", title="The GPU idles", outcome="not_applicable", reason="no GPU"
        ),
        RuleOutcome(rule="tree_depth", title="A tree is deep", outcome="switched_off"),
    ]
    return Diagnosis(
        findings=found if with_findings else (),
        rules=(*(outcomes if with_findings else ()), *others),
    )


@dataclass(frozen=True)
class Advice:
    """What a profiler advises."""

    advice: str
    seconds: float
    dollars: float | None
    basis: str
    estimated: bool


def operators(count: int = 30) -> OperatorTable:
    """Of a CPU, the longest first."""
    names = ("aten::convolution_backward", "aten::mkldnn_convolution", "aten::native_batch_norm")
    times = [1000 * 0.8**index for index in range(count)]
    return OperatorTable(
        steps=50,
        on_device=False,
        operators=tuple(
            OperatorTime(
                name=f"{names[index % 3]}_{index}",
                calls=50 * (1 + index % 20),
                self_cpu_ms=time,
                total_cpu_ms=1.5 * time,
                self_device_ms=0.0,
                share=time / sum(times),
            )
            for index, time in enumerate(times)
        ),
        operators_in_all=112,
    )


def costs() -> tuple[Advice, ...]:
    """One that is measured, one without a price."""
    return (
        Advice("decode images once (training.pixel_cache)", 96.0, 0.0061, "time waited", True),
        Advice("use two loading workers", 40.0, None, "cores that were idle", True),
    )
