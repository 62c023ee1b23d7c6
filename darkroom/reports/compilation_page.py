"""What `compile_model` measured, as a figure and as a page."""

from matplotlib.figure import Figure

from darkroom.compilation.results import (
    BATCHES,
    CompilationReport,
    EngineResult,
    Measurement,
    OperatorTime,
)
from darkroom.models.engine import EngineName
from darkroom.reports.figures import BLUE, GREY, clean, new_figure, png
from darkroom.reports.pages import data_uri, render_page

_REFERENCE: EngineName = "torch"
_SLOWEST_OPERATORS = 25


def compilation_figure(report: CompilationReport) -> Figure:
    """Latency of each engine, and its throughput by batch size."""
    measured = [r for r in report.results if r.measurement]
    figure = new_figure(width=9, height=0.5 + 0.6 * max(4, len(measured)))
    latency, throughput = figure.subplots(1, 2)
    names = [r.engine for r in measured]
    colours = [BLUE if name == report.chosen else GREY for name in names]
    bars = latency.barh(names, [_of(r).latency_ms for r in measured], color=colours)
    latency.bar_label(bars, fmt="%.1f", padding=3)
    latency.set_xlabel("ms for one image (median)")
    latency.invert_yaxis()
    latency.margins(x=0.18)
    for result in measured:
        speeds = [_of(result).images_per_second[n] for n in BATCHES]
        throughput.plot(BATCHES, speeds, marker="o", label=result.engine)
    throughput.set_xscale("log", base=2)
    throughput.set_xticks(BATCHES, [str(n) for n in BATCHES])
    throughput.set_ylim(bottom=0)
    throughput.set_xlabel("images in a batch")
    throughput.set_ylabel("images/s")
    throughput.legend(fontsize=8)
    clean(latency, throughput)
    return figure


def compilation_page(report: CompilationReport) -> str:
    """The report as one HTML page."""
    rows = [_row(result, report=report) for result in report.results]
    picture = data_uri(png(compilation_figure(report))) if any(r["figures"] for r in rows) else ""
    tvm = report.tvm
    return render_page(
        "compilation.html.j2",
        report=report,
        rows=rows,
        batches=BATCHES,
        picture=picture,
        cards=_cards(report),
        operators=_slowest(tvm.operators) if tvm else (),
        operators_in_all=len(tvm.operators) if tvm else 0,
        operators_ms=sum(operator.ms for operator in tvm.operators) if tvm else 0.0,
    )


def _cards(report: CompilationReport) -> list[tuple[str, str, str]]:
    cards: list[tuple[str, str, str]] = [("chosen", report.chosen, report.reason)]
    measured = report.result(report.chosen).measurement
    if measured:
        cards += [
            ("latency", f"{measured.latency_ms:.2f} ms", f"p99 {measured.latency_ms_p99:.2f} ms"),
            ("throughput", f"{max(measured.images_per_second.values()):.0f}/s", "best batch size"),
            ("memory", f"{measured.memory_mb:.0f} MB", "beside the engine's own code"),
        ]
    if factor := _times_torch(report.result(report.chosen), report=report):
        cards.append(("against torch", f"{factor:.1f}×", "at one image"))
    return cards


def _row(result: EngineResult, *, report: CompilationReport) -> dict[str, object]:
    return {
        "engine": result.engine,
        "version": result.version,
        "is_chosen": result.engine == report.chosen,
        "problem": result.problem,
        "figures": result.measurement,
        "times_torch": _times_torch(result, report=report),
    }


def _times_torch(result: EngineResult, *, report: CompilationReport) -> float | None:
    """How many times faster than torch it answers one image."""
    torch = next((r for r in report.results if r.engine == _REFERENCE), None)
    if result.measurement is None or torch is None or torch.measurement is None:
        return None
    return torch.measurement.latency_ms / result.measurement.latency_ms


def _of(result: EngineResult) -> Measurement:
    assert result.measurement  # noqa: S101 - only those that were measured are drawn
    return result.measurement


def _slowest(operators: tuple[OperatorTime, ...]) -> list[OperatorTime]:
    return sorted(operators, key=lambda operator: -operator.ms)[:_SLOWEST_OPERATORS]
