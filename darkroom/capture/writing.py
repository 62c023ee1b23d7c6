"""Where looks into the network are stored."""

from typing import Protocol

from darkroom.capture.looks import Look


class TensorWriter(Protocol):
    """Stores looks so that a killed training leaves every finished one readable."""

    def write(self, look: Look) -> None:
        """Store one look; one of the same mode and step replaces an earlier one."""

    def close(self) -> None:
        """Finish what is pending."""
