"""A run's results as one self-contained HTML page with its plots, and as Markdown.

In: `RunResults`.  Out: `report.html`, `report.md`, `results.json` in a folder.
Cost: about 0.1 s a plot; needs the extra `report`. A plot is None where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from armorm.bench.aggregate import Figure as Share
from armorm.data.summary import Bins, LabelCounts
from armorm.disk import write_json, write_text
from armorm.numbers import compact_count, count, decimal, duration, listed, percent, signed
from armorm.report.html import Bar, level_bars, render_html, term_bars
from armorm.report.markdown import render_markdown
from armorm.report.plots import (
    ACCENT,
    SECOND,
    SOFT,
    SURFACE,
    Curve,
    CurvePanel,
    Dumbbells,
    Figure,
    Panel,
    curve_grid,
    dot_plot,
    dumbbell_plot,
    heat_map,
    inline,
    learning_curves,
    styled,
)
from armorm.report.run_results import (
    DebiasFacts,
    ExampleAnswer,
    ExampleTerm,
    GateCurve,
    GateFacts,
    ProbeFacts,
    RunResults,
    SuiteAbstention,
    SuiteReliability,
    SuiteResults,
    UncertaintyFacts,
    WorkedExample,
)
from armorm.report.run_tables import run_report, sections_of, subject
from armorm.report.tables import Grid, grid

_MEASURES = (("pearson", "Pearson r", 0.0), ("spearman", "Spearman ρ", 0.0), ("r2", "R²", 0.0), ("auc", "AUC", 0.5))
_WHOLE = (-1.05, 1.05)  # correlations and some air
_FEWEST = 0.005  # a weight below half a per cent is left blank


def write_run(results: RunResults, folder: Path) -> None:
    """Write all files into `folder` (made if absent). Raises `MissingExtra` without jinja2 or matplotlib, `StorageError`."""
    write_json(folder / "results.json", results.to_json())
    write_text(folder / "report.md", render_markdown(run_report(results)))
    write_text(folder / "report.html", render_run_page(results))


def render_run_page(results: RunResults) -> str:
    """The page as text; the same results give the same page."""
    report = run_report(results)
    abstained = [one for one in results.abstention if one.n]
    judged = [one for one in results.reliability if one.n]
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
        "preference": "P(right)" if results.preference else "",
        "abstention": "Too close to call" if abstained else "",
        "examples": "Worked examples" if results.examples else "",
        "warnings": "Warnings" if results.warnings else "",
        "provenance": "Provenance",
    }
    return render_html(
        "run_page.html.jinja",
        results=results,
        report=report,
        contents=[(name, title) for name, title in sections.items() if title],
        head=_head(results),
        suites=[(report[f"suite {one.name}"], suite_figure(one), one.name) for one in results.suites if one.methods],
        label_map=label_map(results.data.labels),
        histograms=[(one.name, _bars(one.histogram)) for one in results.data.objectives],
        probe=probe_figure(results.probe),
        coverage=coverage_figure(results.probe.uncertainty),
        candidates=level_bars(dict(sorted(tried.items(), key=lambda t: -t[1])), decimal, chosen=results.probe.feature),
        debias=debias_figure(results.debias) if results.debias else None,
        shifts=shift_figure(results.debias) if results.debias and results.debias.padding else None,
        gate_map=gate_map(results.gate.by_source),
        gate_curves=gate_curves(results.gate),
        length=length_figure(results) if results.length else None,
        reliability=reliability_figure(judged) if judged else None,
        bins=[report[f"reliability-bins {one.suite}"] for one in judged],
        abstention=abstention_figure(abstained) if abstained else None,
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


# -- plots ----------------------------------------------------------------------------------------------------------------------


def suite_figure(suite: SuiteResults) -> Figure | None:
    """Accuracy by method and section."""
    columns: dict[str, list[Share | None]] = {"all pairs": [one.overall for one in suite.methods]}
    columns |= {name: [one.sections.get(name) for one in suite.methods] for name in sections_of(suite)}
    panels = []
    for title, figures in columns.items():
        size = count(max((one.n for one in figures if one), default=0))
        cells = [one.interval if one else None for one in figures]
        panels.append(Panel(title, cells, 0.5, (0.0, 1.0), percent=True, note=f"{size} pairs"))
    about = subject([one.method for one in suite.methods])
    alt = f"Accuracy by method and section on {suite.name}"
    return dot_plot([one.label for one in suite.methods], panels, highlighted=[about], shared=True, alt=alt)


def length_figure(results: RunResults) -> Figure | None:
    """Rank correlation of score and length by method."""
    methods = list(dict.fromkeys(row.method for row in results.length))
    panels = []
    for suite in dict.fromkeys(row.suite for row in results.length):
        found = {row.method: row for row in results.length if row.suite == suite}
        for key, title in (("pooled", "all answers"), ("within_prompt", "same prompt")):
            cells = [getattr(found.get(method), key, None) for method in methods]
            panels.append(Panel(suite, cells, 0.0, _WHOLE, _WHOLE, note=title))
    labels = results.labels()
    names = [labels.get(method, method) for method in methods]
    return dot_plot(names, panels, highlighted=[subject(methods)], alt="Rank correlation of score and length by method")


def label_map(labels: LabelCounts) -> Figure | None:
    """Number of ratings by objective and source."""
    if not labels.counts:
        return None
    counts = [list(column) for column in zip(*labels.counts, strict=True)]
    shades = [[math.log1p(size) for size in row] for row in counts]
    texts = [[compact_count(size) for size in row] for row in counts]
    return heat_map(labels.objectives, labels.sources, shades, texts, alt="Number of ratings by objective and source")


def probe_figure(probe: ProbeFacts) -> Figure | None:
    """How well each objective is predicted on test prompts."""
    panels = [
        Panel(title, [getattr(row, key) for row in probe.objectives], reference, (-1.0, 1.02))
        for key, title, reference in _MEASURES
    ]
    return dot_plot([row.name for row in probe.objectives], panels, alt="Probe quality by objective")


def coverage_figure(part: UncertaintyFacts) -> Figure | None:
    """Share of ratings inside their interval."""
    panels = []
    for key, title in (("coverage", "test prompts"), ("coverage_cross_validated", "over the folds")):
        cells = [getattr(row, key) for row in part.objectives]
        panels.append(Panel(title, cells, part.level, (0.0, 1.005), [1.0], percent=True, note="ratings inside, %"))
    return dot_plot([row.name for row in part.objectives], panels, alt="Coverage of rating intervals by objective")


def debias_figure(debias: DebiasFacts) -> Figure | None:
    """Correlation with each nuisance before and after, on both sets."""
    panels = []
    for nuisance in debias.nuisances:
        for key, where in (("reference", "reference answers"), ("held_out", "held-out answers")):
            cells = [getattr(row, key)[nuisance] for row in debias.objectives]
            before, after = ([getattr(cell, side) for cell in cells] for side in ("before", "after"))
            if any(map(math.isfinite, before)):
                panels.append(Dumbbells(nuisance, where, before, after))
    alt = "Correlation with each nuisance before and after debiasing"
    return dumbbell_plot([row.name for row in debias.objectives], panels, alt=alt) if panels else None


def shift_figure(debias: DebiasFacts) -> Figure | None:
    """How far padding moves each reward, before and after debiasing."""
    told = [(one.name, one.padding) for one in debias.objectives if one.padding is not None]
    before, after = [of.shift for _, of in told], [of.shift_after for _, of in told]
    ends = [abs(x) for one in (*before, *after) for x in (one.value, one.low, one.high) if math.isfinite(x)]
    limits = (-1.1 * max(ends), 1.1 * max(ends)) if ends and max(ends) > 0 else (-1.0, 1.0)
    panels = [Panel(title, cells, 0.0, limits, note="shift, σ") for title, cells in (("before", before), ("after", after))]
    return dot_plot([name for name, _ in told], panels, shared=True, alt="Shift of each reward under padding")


def gate_map(by_source: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Mean weight by objective and source."""
    if not by_source:
        return None
    objectives = list(dict.fromkeys(name for weights in by_source.values() for name in weights))
    weights = [[by_source[source].get(name, 0.0) for source in by_source] for name in objectives]
    weights = [[weight if weight >= _FEWEST else 0.0 for weight in row] for row in weights]
    texts = [[f"{100 * weight:.0f}" if weight else "" for weight in row] for row in weights]
    return heat_map(objectives, list(by_source), weights, texts, alt="Mean gate weight by objective and source")


def gate_curves(gate: GateFacts) -> Figure | None:
    """The gate's training, seed by seed."""
    titles = {
        "validation accuracy": ["validation_accuracy"],
        "loss (dashed: training)": ["validation_loss", "train_loss"],
        "scale β": ["beta"],
    }
    panels = []
    for title, keys in titles.items():
        curves = [_curve(run, key, highlighted=run.seed == gate.chosen_seed) for run in gate.curves for key in keys]
        if taken := [curve for curve in curves if curve.values]:
            panels.append(CurvePanel(title, taken, None if gate.best_step is None else float(gate.best_step)))
    return learning_curves(panels, alt="Learning curves of the gate") if panels else None


@styled
def abstention_figure(suites: Sequence[SuiteAbstention]) -> Figure:
    """Error rate over the share left open, in per cent, with its 95 % band; dashed: what the probabilities promise."""
    figure, grid = curve_grid([suite.suite for suite in suites], "left open, %")
    for axes, suite in zip(grid, suites, strict=True):
        found = suite.by_probability or suite.by_margin
        _error_line(axes, [(p.abstained, p.promised) for p in found], color=SECOND, linewidth=1.3, linestyle=(0, (4, 2)))
        _error_line(axes, [(p.abstained, p.error.value) for p in found], color=ACCENT, linewidth=1.7)
        known = [p for p in found if math.isfinite(p.error.low) and math.isfinite(p.error.high)]
        low, high = [100 * p.error.low for p in known], [100 * p.error.high for p in known]
        axes.fill_between([100 * p.abstained for p in known], low, high, color=ACCENT, alpha=0.16, linewidth=0, zorder=2)
        axes.set_ylim(bottom=0)
    return inline(figure, "Error rate by share of pairs left open")


def _error_line(axes: Any, points: Sequence[tuple[float, float]], **look: Any) -> None:
    known = [(100 * left_open, 100 * error) for left_open, error in points if math.isfinite(error)]
    axes.plot([left_open for left_open, _ in known], [error for _, error in known], zorder=3, **look)


@styled
def reliability_figure(suites: Sequence[SuiteReliability]) -> Figure:
    """Share of right calls over the promised one, in per cent, bin by bin with 95 % intervals; dashed: where both agree."""
    figure, grid = curve_grid([suite.suite for suite in suites], "promised, %")
    for axes, suite in zip(grid, suites, strict=True):
        axes.plot([50, 100], [50, 100], color=SOFT, linewidth=0.9, dashes=(3, 3), zorder=1)
        for one in suite.bins:
            x, right = 100 * one.confidence, one.right
            axes.plot([x, x], [100 * right.low, 100 * right.high], color=ACCENT, linewidth=1.5, alpha=0.7, zorder=2)
        promised, found = [100 * one.confidence for one in suite.bins], [100 * one.right.value for one in suite.bins]
        axes.plot(promised, found, "o-", color=ACCENT, linewidth=1.0, markersize=4.6, markeredgecolor=SURFACE, zorder=3)
        axes.set_xlim(48, 102)
        lowest = [100 * one.right.low for one in suite.bins if math.isfinite(one.right.low)]
        axes.set_ylim(min([38.0, *lowest]) - 2, 102)
    return inline(figure, "Share of right calls by promised probability")


def _curve(run: GateCurve, key: str, *, highlighted: bool) -> Curve:
    """One run's numbers, without the steps at which they were not taken."""
    taken = [(step, value) for step, value in zip(run.steps, getattr(run, key), strict=False) if math.isfinite(value)]
    return Curve([float(step) for step, _ in taken], [value for _, value in taken], highlighted, dashed=key == "train_loss")
