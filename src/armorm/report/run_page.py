"""A run's results as one self-contained HTML page, and as Markdown.

In: `RunResults`.  Out: `report.html`, `report.md`, `results.json` in a folder.  Cost: a second or two; needs the extra `report`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from armorm.data.summary import Bins
from armorm.disk import write_json, write_text
from armorm.numbers import count, decimal, duration, listed, percent, signed
from armorm.report import run_figures
from armorm.report.bars import Bar, level_bars, term_bars
from armorm.report.html import render_html
from armorm.report.markdown import render_markdown
from armorm.report.run_results import ExampleAnswer, ExampleTerm, RunResults, WorkedExample
from armorm.report.run_tables import run_report
from armorm.report.tables import Grid, grid

_TEMPLATE = "run_page.html.jinja"


def write_run(results: RunResults, folder: Path) -> None:
    """Write all files into `folder` (made if absent). Raises `MissingExtra` without jinja2 or matplotlib, `StorageError`."""
    write_json(folder / "results.json", results.to_json())
    write_text(folder / "report.md", render_markdown(run_report(results)))
    write_text(folder / "report.html", render_run_page(results))


def render_run_page(results: RunResults) -> str:
    """The page as text; the same results give the same page."""
    report = run_report(results)
    abstained = [one for one in results.abstention if one.n]
    tried = {one.feature: one.pearson for one in results.probe.candidates if math.isfinite(one.pearson)}
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
        candidates=level_bars(dict(sorted(tried.items(), key=lambda t: -t[1])), decimal, chosen=results.probe.feature),
        debias=run_figures.debias_figure(results.debias) if results.debias else None,
        gate_map=run_figures.gate_map(results.gate.by_source),
        gate_curves=run_figures.gate_curves(results.gate),
        length=run_figures.length_figure(results) if results.length else None,
        abstention=run_figures.abstention_figure(abstained) if abstained else None,
        close_calls=[report[f"abstention {one.suite}"] for one in abstained],
        examples=[draw_example(one) for one in results.examples],
        stages=level_bars(results.seconds, duration),
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


def _bars(histogram: Bins) -> list[dict[str, float]]:
    most = max(histogram.counts, default=0) or 1
    bins = zip(histogram.counts, pairwise(histogram.edges), strict=True)
    return [{"height": round(100 * n / most, 1), "low": low, "high": high, "count": n} for n, (low, high) in bins]


# -- worked examples ---------------------------------------------------------------------------------------------------------


def draw_example(example: WorkedExample) -> dict[str, Any]:
    """An example's answers with their bars, all on one scale, and in a sentence (`gap`) which terms make the difference.

    `mismatch` is what an answer's terms sum to, where that is not its score.
    """
    ordered = [sorted(answer.terms, key=lambda term: -abs(term.contribution)) for answer in example.answers]
    columns = term_bars([[Bar(term.term, term.contribution, _title(term)) for term in terms] for terms in ordered])
    answers = []
    for answer, bars, terms in zip(example.answers, columns, ordered, strict=True):
        total = sum(term.contribution for term in terms)
        agrees = abs(total - answer.score) <= 1e-3 * max(1.0, abs(answer.score))
        answers.append({"answer": answer, "bars": bars, "terms": _terms(terms), "mismatch": None if agrees else total})
    return {"example": example, "answers": answers, "gap": _gap(example.answers) if len(answers) == 2 else ""}


def _title(term: ExampleTerm) -> str:
    raw = f"reward {decimal(term.reward)} (raw {decimal(term.raw, 2)})"
    return f"{raw} × coefficient {signed(term.coefficient)}; gate {percent(term.gate)}"


def _terms(terms: Sequence[ExampleTerm]) -> Grid:
    rows = [
        [t.term, decimal(t.reward), decimal(t.raw, 2), percent(t.gate), signed(t.coefficient), signed(t.contribution)]
        for t in terms
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
