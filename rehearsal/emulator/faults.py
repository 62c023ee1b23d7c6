"""What is made to go wrong, on demand."""

from rehearsal.emulator.calls import Call


class Faults:
    """The faults that are set."""

    def strike(self, call: Call) -> None:
        """Fail or delay this call, where a fault says so."""
