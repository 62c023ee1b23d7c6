"""The training report: complete in itself, safe, small, and honest about what is missing."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from darkroom.reports.training_curves import OTHER, small_plot, time_by_phase
from darkroom.reports.training_page import training_report, verdict
from darkroom.telemetry.evidence import Evidence
from darkroom.telemetry.findings import Diagnosis, Finding, Plot, RuleOutcome
from training_evidence import (
    CLASSES,
    broken_at_step_3,
    facts,
    healthy,
    image_margins,
    nothing,
    overfitting,
    step_log,
    vanishing,
)
from training_findings import costs, diagnosis, finding, operators
from training_tensors import MOBILENET_142, RESNET_62, RESNET_467

HOSTILE = "<script>alert('x')</script>"
UNJUDGED = Diagnosis(findings=(), rules=())


class Tags(HTMLParser):
    """Checks that tags are balanced, and keeps what a page would load or lead to."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> Tags:
    """A page that is well formed and loads nothing."""
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert {"script", "link", "iframe"}.isdisjoint(tags.seen)
    inner = {address for address in tags.addresses if address.startswith("#")}
    assert all(a.startswith("data:image/") for a in set(tags.addresses) - inner)
    assert {address[1:] for address in inner} <= set(tags.ids)
    assert len(tags.ids) == len(set(tags.ids))
    assert not re.search(r"url\(|@import|https?://", page)
    return tags


def drawn(page: str) -> list[str]:
    """Coordinates that a browser would have to draw."""
    return re.findall(r' (?:d|x|y|x1|x2|y1|y2|cx|cy|width|height)="([^"]*)"', page)


@pytest.mark.parametrize(
    "evidence",
    [healthy(), healthy(gpus=2), overfitting(), vanishing(), broken_at_step_3(), nothing()],
    ids=["healthy", "gpus", "overfitting", "vanishing", "broken", "nothing"],
)
@pytest.mark.parametrize("judged", [diagnosis(), UNJUDGED], ids=["judged", "unjudged"])
def test_every_training_has_a_page_that_is_complete_in_itself(
    evidence: Evidence, judged: Diagnosis
) -> None:
    page = training_report(evidence, diagnosis=judged, run_name="dogs")
    checked(page)
    assert not [value for value in drawn(page) if "nan" in value or "inf" in value]


def test_names_are_told_as_they_are() -> None:
    assert len(RESNET_62) == 62
    assert len(MOBILENET_142) == 142


def test_a_deep_network_and_ten_thousand_steps_stay_small() -> None:
    long = healthy(names=RESNET_467, epochs=40, per_epoch=250)
    page = training_report(long, diagnosis=diagnosis())
    assert len(long.steps) == 10_000
    assert len(page.encode()) < 3_000_000
    assert "311 tensors in" in page


def test_whatever_a_user_names_is_escaped() -> None:
    margins = replace(image_margins(), paths=[f"{HOSTILE}/{i}.jpg" for i in range(300)])
    hostile = healthy(
        facts=facts(
            architecture=HOSTILE,
            classes=(HOSTILE, *CLASSES[1:]),
            hyperparameters={HOSTILE: HOSTILE},
        ),
        margins=margins,
        names=[f"{HOSTILE}.{name}" for name in RESNET_62],
    )
    told = finding(
        rule=HOSTILE,
        title=HOSTILE,
        where=HOSTILE,
        meaning=HOSTILE,
        advice=(HOSTILE,),
        evidence={HOSTILE: HOSTILE},
        plot=Plot(x_label=HOSTILE, y_label=HOSTILE, x=(0, 1), lines={HOSTILE: (1, 2)}),
    )
    outcome = RuleOutcome(
        rule=HOSTILE, title=HOSTILE, outcome="failed", reason=HOSTILE, parameters={HOSTILE: HOSTILE}
    )
    page = training_report(
        hostile, diagnosis=Diagnosis(findings=(told,), rules=(outcome,)), run_name=HOSTILE
    )
    checked(page)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 20


def test_the_worst_findings_come_first_and_the_rest_is_folded() -> None:
    page = training_report(vanishing(), diagnosis=diagnosis())
    order = ["Gradients vanish", "Training waits for data", "Units die", "by heart", "unequal"]
    places = [page.index(f"</span>{title}") for title in order[:3]]
    places += [re.search(rf"<summary>.*{title}</summary>", page).start() for title in order[3:]]
    assert places == sorted(places)
    assert places[-1] < page.index("Loss and learning rate")
    assert page.count("<section class=") == 3
    assert page.count('<details class="panel finding') == 2


def test_findings_are_marked_on_the_loss_and_lead_to_their_place() -> None:
    page = training_report(vanishing(), diagnosis=diagnosis())
    flags = re.findall(r'<a href="#finding-(\d)" class="flag (\w+)">', page)
    assert ("1", "error") in flags
    assert {number for number, _ in flags} == {"1", "2", "3", "4", "5"}


def test_plots_of_findings_may_have_gaps() -> None:
    plot = Plot(
        x_label="x",
        y_label="y",
        x=(0.0, 0.5, 1.0),
        lines={"a": (float("nan"), 2.0, float("inf")), "b": (float("nan"),) * 3},
        threshold=float("nan"),
        log=True,
    )
    judged = Diagnosis(findings=(finding(plot=plot),), rules=())
    checked(training_report(healthy(), diagnosis=judged))


def test_broken_losses_are_told_and_drawn() -> None:
    page = training_report(broken_at_step_3(), diagnosis=UNJUDGED)
    assert "not finite in 4 of 6 steps, first at step 2" in page
    assert 'class="area c-red"' in page
    assert "No epoch was completed" in page


def test_what_is_missing_is_said() -> None:
    page = training_report(nothing(), diagnosis=UNJUDGED)
    for told in (
        "Not judged: no rule was evaluated",
        "No step was recorded",
        "Gradients: not recorded",
        "No rule was evaluated",
        "No step was timed",
        "The machine was not sampled",
        "No operator was timed",
        "No image stands out",
    ):
        assert told in page
    assert "<svg" not in page


def test_the_verdict_is_a_sentence() -> None:
    assert verdict(diagnosis()) == ("bad", "1 error, 3 warnings, 1 note. First: Gradients vanish.")
    clean = verdict(diagnosis(with_findings=False))
    assert clean == ("good", "Nothing was found by the 1 rule that applied.")
    stopped = diagnosis().model_copy(update={"stopped_by": "vanishing_gradient"})
    assert "The rule vanishing_gradient ended the training early." in verdict(stopped)[1]
    assert "had not ended" in verdict(diagnosis(), ended=False)[1]
    failed = RuleOutcome(rule="own", title="Mine", outcome="failed", reason="KeyError: 'x'")
    assert "1 rule could not be evaluated" in verdict(Diagnosis(findings=(), rules=(failed,)))[1]


def test_rules_say_why_they_do_not_apply_and_lead_to_what_they_found() -> None:
    page = training_report(healthy(), diagnosis=diagnosis())
    table = page[page.index('id="rules"') : page.index('id="time"')]
    assert "no GPU" in table
    assert 'class="badge error" href="#finding-1">1</a>' in table
    assert table.index("Gradients vanish") < table.index("Values explode") < table.index("idles")


def test_images_with_doubtful_labels_are_shown() -> None:
    asked: list[str] = []

    def thumbnail(path: str) -> str | None:
        asked.append(path)
        return "data:image/jpeg;base64,AAAA" if len(asked) % 2 else None

    page = training_report(healthy(), diagnosis=UNJUDGED, thumbnails=thumbnail)
    assert len(asked) == 12
    assert page.count("data:image/jpeg;base64,AAAA") == 6
    assert page.count("seen as <b>") == 12


def test_time_adds_up_to_the_whole_training() -> None:
    evidence = healthy(epochs=3, per_epoch=50)
    steps = evidence.steps
    times = time_by_phase(evidence)
    whole = steps.started[-1] - steps.started[0] + sum(s[-1] for s in steps.seconds.values()) + 2.4
    assert sum(times.values()) == pytest.approx(whole)
    assert times["evaluation"] == pytest.approx(3 * 2.1)
    assert times["checkpoint"] == pytest.approx(3 * 0.3)
    assert times[OTHER] < 0.1 * whole


def test_one_step_is_enough_for_a_page() -> None:
    one = replace(healthy(), steps=step_log(epochs=1, per_epoch=1, loss=lambda s: s + 1), epochs=())
    checked(training_report(one, diagnosis=UNJUDGED))


def test_a_finding_of_an_epoch_alone_is_marked_at_its_end() -> None:
    judged = Diagnosis(findings=(_of_epoch(2),), rules=())
    page = training_report(healthy(), diagnosis=judged)
    assert '<a href="#finding-1" class="flag error">' in page
    beyond = Diagnosis(findings=(_of_epoch(99),), rules=())
    assert 'class="flag' not in training_report(healthy(), diagnosis=beyond)


def _of_epoch(epoch: int) -> Finding:
    return finding(step=None, epoch=epoch)


def test_interruptions_are_told_and_do_not_count() -> None:
    whole = healthy(epochs=4, per_epoch=50)
    steps = whole.steps
    later = np.where(steps.step >= 100, steps.started + 7200, steps.started)
    torn = replace(whole, steps=replace(steps, started=later))
    assert time_by_phase(torn) == pytest.approx(time_by_phase(whole), abs=1.0)
    assert "interrupted for 2 h 0 min" in training_report(torn, diagnosis=UNJUDGED)
    assert "interrupted" not in training_report(whole, diagnosis=UNJUDGED)


def test_the_slowest_operators_and_what_advice_would_save_are_tables() -> None:
    page = training_report(healthy(), diagnosis=UNJUDGED, operators=operators(), costs=costs())
    checked(page)
    table = page[page.index('id="operators"') : page.index('id="suspects"')]
    assert table.count("aten::") == 20
    assert table.index("convolution_backward_0") < table.index("mkldnn_convolution_1")
    assert table.count(">estimate<") == 2
    assert "The 20 of 112 operators that took longest on the CPU" in table
    assert "$0.0061" in table
    assert "1 min 36 s" in table


def test_what_the_training_cost_stands_above_what_would_save() -> None:
    page = training_report(healthy(), diagnosis=UNJUDGED, run_costs=costs()[:1], costs=costs()[1:])
    checked(page)
    cost, save = page.index("What it cost"), page.index("What would save")
    assert cost < page.index(costs()[0].advice) < save < page.index(costs()[1].advice)
    assert 'href="#costs"' in page
    assert "estimate" in page
    alone = training_report(healthy(), diagnosis=UNJUDGED, run_costs=costs()[:1])
    assert "No change is known that would save much." in alone
    none = training_report(healthy(), diagnosis=UNJUDGED)
    assert 'href="#costs"' not in none


def test_other_programs_that_take_a_full_cpu_are_told() -> None:
    system = healthy().system
    cores = system.cpu.shape[1]
    full = replace(system, cpu=np.full_like(system.cpu, 100.0))
    own = np.full_like(system.process_cpu, 100.0 * cores)
    shared = replace(full, process_cpu=0.4 * own)
    alone = replace(full, process_cpu=own)
    told = f"Other programs kept {0.6 * cores:.1f} of {cores} cores busy"
    assert told in training_report(healthy(system=shared), diagnosis=UNJUDGED)
    assert "Other programs" not in training_report(healthy(system=alone), diagnosis=UNJUDGED)


def test_why_a_training_failed_stands_at_the_top() -> None:
    page = training_report(healthy(), diagnosis=UNJUDGED, failure="the loss is <no number>")
    checked(page)
    failed = page.index("The training failed: the loss is &lt;no number&gt;")
    assert page.index('class="verdict') < failed < page.index('class="cards"')
    assert "The training failed" not in training_report(healthy(), diagnosis=UNJUDGED)


def test_evidence_that_spans_decades_is_drawn_logarithmically() -> None:
    def ticks(first: float) -> list[str]:
        x, y = tuple(float(i) for i in range(8)), (first, *(10.0**i for i in range(1, 8)))
        plot = Plot(x_label="step", y_label="loss", x=x, lines={"": y})
        return re.findall(r">([^<]+)</text>", small_plot(plot, label=""))

    assert "10,000" in ticks(1.0)
    assert "10,000" not in ticks(0.0)  # a zero has no place on a logarithmic axis


def test_a_finding_names_its_step_without_calling_it_the_first() -> None:
    found = finding(step=41, epoch=3, occurrences=3)
    page = training_report(healthy(), diagnosis=Diagnosis(findings=(found,), rules=()))
    assert "step 41 · epoch 3 · 3 places" in page
    assert "first at step" not in page


def test_labels_are_not_doubted_where_nothing_was_learned() -> None:
    margins = image_margins()
    unlearned = replace(margins, margin=-np.abs(margins.margin))
    page = training_report(healthy(margins=unlearned), diagnosis=UNJUDGED)
    assert "<figcaption>" not in page
    assert "the network learned too little to tell" in page


def test_a_machine_that_could_not_be_measured_leaves_gaps() -> None:
    system = healthy().system
    unknown = np.full_like(system.disk_read, np.nan)
    cpu = np.where(np.arange(len(system.time))[:, None] < 5, np.nan, system.cpu)
    blind = replace(system, cpu=cpu, disk_read=unknown, disk_write=unknown)
    page = training_report(healthy(system=blind), diagnosis=UNJUDGED)
    checked(page)
    assert "<h3>CPU</h3>" in page
    assert "<h3>Disk</h3>" not in page
