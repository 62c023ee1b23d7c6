"""What came of a whole `predict`: how many, how right, how fast, and what could not be used."""

from dataclasses import dataclass, field

import click

from commands.predict_output import Row

_ERRORS_NAMED = 10


@dataclass
class Counts:
    """Of the rows so far."""

    classified: int = 0
    labelled: int = 0
    right: int = 0
    unusable: int = 0
    seconds: float = 0.0
    hidden_errors: list[str] = field(default_factory=list)
    """The first of those that no table shows."""
    hidden: int = 0

    def note(self, row: Row, *, is_shown: bool) -> None:
        """One row more."""
        if error := row.prediction.error:
            self.unusable += 1
            self.hidden += not is_shown
            if not is_shown and len(self.hidden_errors) < _ERRORS_NAMED:
                self.hidden_errors.append(f"{row.prediction.source}: {error}")
            return
        self.classified += 1
        self.labelled += row.label is not None
        self.right += row.is_right is True

    def report(self, *, latency_ms: tuple[float, float] | None, to_stdout: bool) -> None:
        """Print it to standard error; what is right belongs below a table on standard output."""
        click.echo(self._speed(latency_ms), err=True)
        if self.unusable:
            total = self.classified + self.unusable
            click.echo(f"{self.unusable:,} of {total:,} could not be used", err=True)
            for line in self.hidden_errors:
                click.echo(f"  {line}", err=True)
            if more := self.hidden - len(self.hidden_errors):
                click.echo(f"  … and {more:,} more; --out FILE keeps all rows", err=True)
        if self.labelled:
            share = self.right / self.labelled
            click.echo(
                f"{self.right:,} of {self.labelled:,} right ({share:.1%})", err=not to_stdout
            )

    def _speed(self, latency_ms: tuple[float, float] | None) -> str:
        noun = "image" if self.classified == 1 else "images"
        text = f"{self.classified:,} {noun} classified in {self.seconds:.1f} s"
        if latency_ms:
            p50, p99 = latency_ms
            text += f", {p50:.1f} ms an answer (p99 {p99:.1f} ms)"
        return text
