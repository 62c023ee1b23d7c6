"""Every rule by its name."""

from darkroom.rules import (
    activations,
    generalisation,
    gradients,
    initialisation,
    inputs,
    label_noise,
    labels,
    layers,
    learning_rate,
    losses,
    runs,
    settling,
    splits,
    updates,
    values,
)
from darkroom.rules.profiler import PROFILER_RULES
from darkroom.rules.rule import Rule

TRAINING_RULES: tuple[Rule, ...] = (
    *losses.RULES,
    *learning_rate.RULES,
    *initialisation.RULES,
    *inputs.RULES,
    *gradients.RULES,
    *values.RULES,
    *activations.RULES,
    *updates.RULES,
    *layers.RULES,
    *settling.RULES,
    *generalisation.RULES,
    *label_noise.RULES,
    *splits.RULES,
    *labels.RULES,
    *runs.RULES,
)
"""Those over tensors, losses and labels."""

RULES: dict[str, Rule] = {rule.name: rule for rule in (*TRAINING_RULES, *PROFILER_RULES)}
