"""What every training of the benchmarks imports, loaded once before processes are forked."""

import darkroom.diagnosis.diagnosing
import darkroom.training.loop

__all__ = ["darkroom"]
