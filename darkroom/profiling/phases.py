"""The phases of a training step, and of what lies between steps."""

from typing import Literal, get_args

Phase = Literal[
    "data_wait",
    "transfer",
    "forward",
    "backward",
    "optimiser",
    "recording",
    "evaluation",
    "checkpoint",
]
"""`data_wait`: until the batch's pixels are there; `transfer`: to the device and to floats;
`forward`: network and loss; `recording`: what recording and judging themselves cost."""

PHASES: tuple[Phase, ...] = get_args(Phase)
STEP_PHASES: tuple[Phase, ...] = PHASES[:6]
BETWEEN_STEPS: tuple[Phase, ...] = PHASES[6:]
