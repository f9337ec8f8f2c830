"""A run's results as one self-contained HTML page, and as Markdown.

In: `RunResults`.  Out: `report.html`, `report.md`, `results.json` in a folder.  Cost: a second or two; needs the extra `report`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from armorm.data.summary import Histogram
from armorm.disk import write_json, write_text
from armorm.numbers import count, decimal, duration, listed, percent, signed
from armorm.report import run_figures
from armorm.report.html import render_html
from armorm.report.markdown import render_markdown
from armorm.report.run_results import ExampleAnswer, ExampleTerm, RunResults, WorkedExample
from armorm.report.run_tables import run_report
from armorm.report.tables import Grid, grid

_TEMPLATE = "run_page.html.jinja"
_TERMS_SHOWN = 10


def write_run(results: RunResults, folder: Path) -> None:
    """Write all files into `folder` (made if absent). Raises `MissingExtra` without jinja2 or matplotlib, `StorageError`."""
    write_json(folder / "results.json", results.to_json())
    write_text(folder / "report.md", render_markdown(run_report(results)))
    write_text(folder / "report.html", render_run_page(results))


def render_run_page(results: RunResults) -> str:
    """The page as text; the same results give the same page."""
    report = run_report(results)
    abstained = [one for one in results.abstention if one.n]
    sections = {
        "accuracy": "Accuracy" if results.suites else "",
        "planted": "Planted truth" if results.planted else "",
        "data": "Data",
        "probe": "Probe",
        "uncertainty": "Uncertainty",
        "features": "Candidate features",
        "debias": "Debiasing" if results.debias else "",
        "gate": "Gate",
        "length": "Length" if results.length else "",
        "abstention": "Too close to call" if abstained else "",
        "examples": "Worked examples" if results.examples else "",
        "warnings": "Warnings" if results.warnings else "",
        "provenance": "Provenance",
    }
    return render_html(
        _TEMPLATE,
        results=results,
        report=report,
        contents=[(name, title) for name, title in sections.items() if title],
        head=_head(results),
        suites=[(report[f"suite {one.name}"], run_figures.suite_figure(one), one.name) for one in results.suites if one.methods],
        label_map=run_figures.label_map(results.data.labels),
        histograms=[(one.name, _bars(one.histogram)) for one in results.data.objectives],
        probe=run_figures.probe_figure(results.probe),
        coverage=run_figures.coverage_figure(results.probe.uncertainty),
        candidates=_candidates(results),
        debias=run_figures.debias_figure(results.debias) if results.debias else None,
        gate_map=run_figures.gate_map(results.gate.by_source),
        gate_curves=run_figures.gate_curves(results.gate),
        length=run_figures.length_figure(results) if results.length else None,
        abstention=run_figures.abstention_figure(abstained) if abstained else None,
        close_calls=[report[f"abstention {one.suite}"] for one in abstained],
        examples=[draw_example(one) for one in results.examples],
        stages=_stages(results.seconds),
    )


def _head(results: RunResults) -> list[tuple[str, str]]:
    """What the head of the page says in a glance."""
    data = results.data
    kept = {kind: sum(s.kept for s in data.sources if s.kind == kind) for kind in ("ratings", "pairs")}
    return [
        ("backbone", results.backbone.model),
        ("rated answers", count(kept["ratings"])),
        ("preference pairs", count(kept["pairs"])),
        ("objectives", count(len(data.objectives))),
        ("time", duration(sum(results.seconds.values()))),
    ]


def _bars(histogram: Histogram) -> list[dict[str, float]]:
    most = max(histogram.counts, default=0) or 1
    bins = zip(histogram.counts, pairwise(histogram.edges), strict=True)
    return [{"height": round(100 * n / most, 1), "low": low, "high": high, "count": n} for n, (low, high) in bins]


def _candidates(results: RunResults) -> list[dict[str, Any]]:
    """The features that were tried, best first."""
    tried = sorted((c for c in results.probe.candidates if math.isfinite(c.pearson)), key=lambda c: -c.pearson)
    most = max((c.pearson for c in tried), default=0.0)
    return [
        {
            "name": c.feature,
            "width": round(100 * max(c.pearson, 0.0) / max(most, 1e-9), 1),
            "chosen": c.feature == results.probe.feature,
            "value": decimal(c.pearson),
        }
        for c in tried
    ]


def _stages(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    most = max(seconds.values(), default=0.0) or 1.0
    return [
        {"name": name, "width": round(100 * spent / most, 1), "chosen": False, "value": duration(spent)}
        for name, spent in seconds.items()
    ]


# -- worked examples ---------------------------------------------------------------------------------------------------------


@dataclass
class Bar:
    """One term of an answer as a bar; `term` is None for what is left of the terms."""

    name: str
    contribution: float
    term: ExampleTerm | None
    width: float = 0.0


@dataclass(frozen=True)
class DrawnAnswer:
    """An answer with its bars. `mismatch`: what the terms sum to, where that is not the score."""

    answer: ExampleAnswer
    bars: Sequence[Bar]
    terms: Grid
    mismatch: float | None


@dataclass(frozen=True)
class DrawnExample:
    """A pair: the same terms in the same order and scale for every answer, so that rows can be compared across."""

    example: WorkedExample
    answers: Sequence[DrawnAnswer]
    gap: str


def draw_example(example: WorkedExample) -> DrawnExample:
    """Bars of every answer, and in a sentence which terms make the difference."""
    sizes: dict[str, float] = {}
    for answer in example.answers:
        for term in answer.terms:
            sizes[term.term] = max(abs(term.contribution), sizes.get(term.term, 0.0))
    ordered = sorted(sizes, key=lambda name: -sizes[name])
    shown = ordered if len(ordered) <= _TERMS_SHOWN + 1 else ordered[:_TERMS_SHOWN]
    answers = [_draw_answer(answer, shown, len(ordered) - len(shown)) for answer in example.answers]
    reach = max((abs(bar.contribution) for one in answers for bar in one.bars), default=0.0) or 1.0
    for one in answers:
        for bar in one.bars:
            bar.width = round(50 * abs(bar.contribution) / reach, 2)
    return DrawnExample(example, answers, _gap(example.answers) if len(answers) == 2 else "")


def _draw_answer(answer: ExampleAnswer, shown: Sequence[str], hidden: int) -> DrawnAnswer:
    terms = {term.term: term for term in answer.terms}
    bars = [Bar(name, terms[name].contribution, terms[name]) for name in shown if name in terms]
    if hidden:
        rest = sum(term.contribution for name, term in terms.items() if name not in shown)
        bars.append(Bar(f"{hidden} smaller terms", rest, None))
    total = sum(term.contribution for term in answer.terms)
    agrees = abs(total - answer.score) <= 1e-3 * max(1.0, abs(answer.score))
    return DrawnAnswer(answer, bars, _terms(answer), None if agrees else total)


def _terms(answer: ExampleAnswer) -> Grid:
    rows = [
        [t.term, decimal(t.reward), decimal(t.raw, 2), percent(t.gate), signed(t.coefficient), signed(t.contribution)]
        for t in sorted(answer.terms, key=lambda term: -abs(term.contribution))
    ]
    return grid("terms", "", ("term", "reward", "raw", "gate", "coefficient", "product"), rows)


def _gap(answers: Sequence[ExampleAnswer]) -> str:
    """Which terms make the difference between two answers."""
    first, second = ({term.term: term.contribution for term in answer.terms} for answer in answers)
    gap = answers[0].score - answers[1].score
    ahead = "scores the same as" if gap == 0 else "scores higher than" if gap > 0 else "scores lower than"
    text = f"The {answers[0].label} answer {ahead} the {answers[1].label} one"
    text += f" ({signed(gap)})." if gap else "."
    moves = {name: first.get(name, 0.0) - second.get(name, 0.0) for name in dict.fromkeys([*first, *second])}
    largest = sorted((name for name in moves if moves[name]), key=lambda name: -abs(moves[name]))[:3]
    return f"{text} Largest differences: {listed(f'{name} {signed(moves[name])}' for name in largest)}." if largest else text
