"""A set of rows as one self-contained HTML page: what `data.inspect` found, with plots, and in words what to mind.

In: an `Inspection`.  Out: `inspect.json`, `inspect.html` in a folder.  Cost: a second or two; needs the extra `report`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from armorm.data.inspection import Inspection, RatedObjective
from armorm.disk import write_json, write_text
from armorm.numbers import count, decimal, percent
from armorm.report.data_tables import findings, inspection_report
from armorm.report.html import render_html
from armorm.report.plots import Figure, Histogram, Panel, dot_plot, heat_map, histograms

_TEMPLATE = "data_page.html.jinja"


def write_inspection(facts: Inspection, folder: Path) -> Path:
    """Write both files into `folder` (made if absent), the facts first, and return the page's path.

    Raises `MissingExtra` without jinja2 or matplotlib, `StorageError` where a file can't be written.
    """
    write_json(folder / "inspect.json", facts.to_json())
    write_text(folder / "inspect.html", render_data_page(facts))
    return folder / "inspect.html"


def render_data_page(facts: Inspection) -> str:
    """The page as text; the same facts give the same page."""
    rated = [o for o in facts.objectives if o.n]
    report, correlations = inspection_report(facts), _correlations(rated)
    sections = {
        "records": "Records",
        "ratings": "Ratings" if rated else "",
        "labels": "Missing labels" if rated else "",
        "lengths": "Lengths",
        "follows": "Length and what was given" if correlations or facts.longer_chosen else "",
        "repeats": "Repeats",
        "leakage": "Leakage" if facts.leakage else "",
    }
    return render_html(
        _TEMPLATE,
        facts=facts,
        report=report,
        contents=[(name, title) for name, title in sections.items() if title],
        findings=findings(facts),
        head=_head(facts),
        ratings=_ratings(rated),
        labels=_labels(rated, facts),
        lengths=_lengths(facts),
        correlations=correlations,
        leaked=[grid for grid in report.grids if grid.name.startswith("leaked ")],
    )


def _head(facts: Inspection) -> list[tuple[str, str]]:
    answers = facts.lengths.answer or facts.lengths.chosen
    words = answers and answers.words
    rated = sum(bool(o.n) for o in facts.objectives)
    cells = [
        ("rows" if facts.kind == "ratings" else "pairs", count(facts.counts.rows)),
        ("records read", count(facts.counts.records)),
        ("prompts", count(facts.counts.prompts)),
        ("rows per prompt", decimal(facts.rows_per_prompt.mean, 1) if facts.rows_per_prompt else ""),
        ("objectives", str(rated) if facts.kind == "ratings" else ""),
        ("words in an answer (median)", count(words.median) if words else ""),
    ]
    return [(name, value) for name, value in cells if value]


def _ratings(rated: Sequence[RatedObjective]) -> Figure | None:
    panels = [
        Histogram(
            o.name,
            f"mean {decimal(o.mean, 2)}, n {count(o.n)}",
            o.histogram.values or o.histogram.edges,
            [float(n) for n in o.histogram.counts],
            o.min,
            o.max,
            mark=o.mean,
        )
        for o in rated
        if math.isfinite(o.max - o.min)
    ]
    return histograms(panels, alt="Ratings by objective") if panels else None


def _labels(rated: Sequence[RatedObjective], facts: Inspection) -> Figure | None:
    listed = facts.patterns.most if facts.patterns else ()
    if not rated or not listed:
        return None
    rows = facts.counts.rows
    columns = ["all rows", *(f"{i}: {percent(one.share)}" for i, one in enumerate(listed, 1))]
    shades = [[o.n / rows, *(0.5 * (o.name in one.objectives) for one in listed)] for o in rated]
    texts = [[percent(o.n / rows), *("yes" if o.name in one.objectives else "" for one in listed)] for o in rated]
    return heat_map([o.name for o in rated], columns, shades, texts, alt="Labels by objective and pattern")


def _lengths(facts: Inspection) -> Figure | None:
    panels = []
    for measure in ("words", "characters"):
        for name, both in facts.lengths.sides().items():
            if (one := getattr(both, measure)) is not None:
                edges = one.histogram.edges
                panels.append(
                    Histogram(
                        f"{name}: {measure}",
                        f"median {count(one.median)}, longest {count(one.max)}",
                        edges,
                        [float(n) for n in one.histogram.counts],
                        edges[0],
                        edges[-1],
                        logarithmic=edges[0] >= 1,
                        mark=max(one.median, edges[0]),
                    )
                )
    return histograms(panels, alt="Lengths of prompts and answers") if panels else None


def _correlations(rated: Sequence[RatedObjective]) -> Figure | None:
    panels = [
        Panel(title, [getattr(o.length, key) for o in rated], 0.0, (-1.02, 1.02), (-0.1, 0.1))
        for key, title in (("spearman", "Spearman ρ"), ("pearson", "Pearson r"))
    ]
    return dot_plot([o.name for o in rated], panels, alt="Correlation of each objective with the answer's length")
