"""Parameters with which our rules decide as SageMaker Debugger's do.

AWS' documentation of Debugger's built-in rules, 2023. Where ours differ, a healthy training
of torchvision's networks meets the original's condition; each rule's docstring says why.
"""

from collections.abc import Mapping

from darkroom.rules.rule import Value

AWS_DEFAULTS: Mapping[str, Mapping[str, Value]] = {
    "vanishing_gradient": {
        "persistence": 1,
        "threshold_layers": 0.0,
        "biases": True,
        "while_loss_above": 0.0,
    },
    "exploding_tensor": {"gradient_persistence": 1},
    "dead_relu": {"persistence": 1, "images": 0},
    "poor_weight_initialization": {
        "threshold": 10.0,
        "distribution_range": 0.001,
        "patience": 5,
        "steps": 10,
        "initial_loss_ratio": None,
    },
    "saturated_activation": {"persistence": 1, "images": 0},
    "weight_update_ratio": {"persistence": 1, "rate_share": 0.0, "negligible": 0.0},
    "all_zero": {"persistence": 1},
    "class_imbalance": {"minimum_images": 0},
    "confusion": {"min_diag": 0.9, "max_off_diag": 0.1, "minimum_images": 0},
    "loss_not_decreasing": {
        "num_steps": 10,
        "increase_threshold_percent": 5.0,
        "smoothing": 1,
        "while_loss_above": 0.0,
    },
    "overfit": {"patience": 1, "ratio_threshold": 0.1, "gap": 0.0, "gap_of_chance": 0.0},
    "unchanged_tensor": {"span": 0, "rate_share": 0.0},
    "check_input_images": {
        "threshold_mean": 0.2,
        "threshold_samples": 500,
        "only_mean": True,
    },
}
"""By rule: what has to be set, beside the parameters whose defaults are AWS' anyway."""
