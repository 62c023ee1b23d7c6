"""Every rule by its name."""

from darkroom.debugging.rules import (
    activations,
    generalisation,
    labels,
    losses,
    machine,
    steps,
    values,
    weights,
)
from darkroom.debugging.rules.rule import Rule

# --- profiler ---
# Rules over where the time goes and what the machine does.

PROFILER_RULES: tuple[Rule, ...] = (
    *steps.STEP_RULES,
    *machine.MEMORY_RULES,
    *machine.MACHINE_RULES,
    *machine.GPU_RULES,
    *steps.OVERALL_RULES,
)
"""SageMaker's profiler rules, as their documentation has them, and ours for CPUs.

Of SageMaker's, `scan_interval_us` is left out: a recording is judged as a whole.
"""


# --- catalogue ---

TRAINING_RULES: tuple[Rule, ...] = (
    *losses.LOSS_RULES,
    *losses.LEARNING_RATE_RULES,
    *weights.INITIALISATION_RULES,
    *activations.INPUT_RULES,
    *weights.GRADIENT_RULES,
    *values.VALUE_RULES,
    *activations.ACTIVATION_RULES,
    *weights.UPDATE_RULES,
    *weights.LAYER_RULES,
    *generalisation.BN_CONVERGENCE_RULES,
    *generalisation.GENERALISATION_RULES,
    *labels.LABEL_NOISE_RULES,
    *labels.SPLIT_RULES,
    *labels.LABEL_RULES,
    *values.RUN_RULES,
)
"""Those over tensors, losses and labels."""

RULES: dict[str, Rule] = {rule.name: rule for rule in (*TRAINING_RULES, *PROFILER_RULES)}
