"""What every training of the benchmarks imports, loaded once before processes are forked."""

import darkroom.debugging.diagnosis
import darkroom.training.loop

__all__ = ["darkroom"]
