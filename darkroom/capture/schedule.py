"""At which training steps the network is looked into."""

from dataclasses import dataclass

from darkroom.config.debugging import RecordingConfig

_LOOKS_PER_EPOCH = 4
_LEAST_STEPS = 25


@dataclass(frozen=True)
class Schedule:
    """Which steps are looked into, and of which the loss is kept as a tensor."""

    every: int
    first: int
    losses_every: int

    @classmethod
    def of(cls, config: RecordingConfig, *, steps_per_epoch: int) -> "Schedule":
        """What the configuration asks for; it leaves the interval to us by 0."""
        automatic = max(_LEAST_STEPS, -(-steps_per_epoch // _LOOKS_PER_EPOCH))
        return cls(
            every=config.every_steps or automatic,
            first=config.first_steps,
            losses_every=config.losses_every_steps,
        )

    def is_look(self, step: int) -> bool:
        """Whether the network is looked into at a step, counted from 0."""
        return step < self.first or step % self.every == 0

    def is_loss(self, step: int) -> bool:
        """Whether the step's loss is kept as a tensor."""
        return step % self.losses_every == 0 or self.is_look(step)
