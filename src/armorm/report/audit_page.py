"""An audit as one self-contained HTML page: how far each change moves the score, in every view, and which objectives move.

In: `AuditResults`.  Out: `audit.json`, `audit.html`, `audit.md` and its picture in a folder.
Cost: a second; needs the extra `report`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from armorm.bench.audit_results import AuditResults
from armorm.disk import write_json, write_text
from armorm.intervals import Interval
from armorm.numbers import signed
from armorm.report.audit_tables import audit_report
from armorm.report.html import render_html
from armorm.report.markdown import render_markdown
from armorm.report.plots import Figure, Panel, common_limits, dot_plot, drawn, heat_map, standalone

_TEMPLATE = "audit_page.html.jinja"
_SEEN = 0.05


def write_audit(results: AuditResults, folder: Path) -> None:
    """Write all files into `folder` (made if absent), the facts first. Raises `MissingExtra`, `StorageError`."""
    write_json(folder / "audit.json", results.to_json())
    report, figure = audit_report(results), _shifts(results)
    if figure is not None:
        write_text(folder / "audit.svg", standalone(figure))
    write_text(folder / "audit.md", render_markdown(report, picture="audit.svg" if figure else ""))
    write_text(folder / "audit.html", render_audit_page(results))


def render_audit_page(results: AuditResults) -> str:
    """The page as text; the same results give the same page."""
    main = results.views[0].name
    parts = [row.views[main].parts for row in results.perturbations]
    return render_html(
        _TEMPLATE,
        results=results,
        report=audit_report(results),
        shifts=_shifts(results),
        risen=_risen(results),
        contributions=_heat(results, parts, "contribution to the score"),
        rewards=_heat(results, [row.rewards for row in results.perturbations], "reward"),
    )


def _shifts(results: AuditResults) -> Figure | None:
    rows = results.perturbations
    columns = {v.label: [drawn(row.views[v.name].shift) for row in rows] for v in results.views}
    limits = common_limits([one for column in columns.values() for one in column], include=[0.0], low=-6.0, high=6.0)
    panels = [Panel(label, column, 0.0, limits) for label, column in columns.items()]
    return _dots(results, panels, "mean shift of the score per change")


def _risen(results: AuditResults) -> Figure | None:
    panels = [
        Panel(v.label, [drawn(row.views[v.name].risen) for row in results.perturbations], 0.5, (-0.02, 1.02), percent=True)
        for v in results.views
    ]
    return _dots(results, panels, "share of answers whose score rises, per change")


def _dots(results: AuditResults, panels: Sequence[Panel], alt: str) -> Figure | None:
    rows = results.perturbations
    harmless = [i for i, row in enumerate(rows) if row.expected == "same"]
    return dot_plot([row.label for row in rows], panels, highlighted=harmless, alt=alt) if rows else None


def _heat(results: AuditResults, parts: Sequence[Mapping[str, Interval]], what: str) -> Figure | None:
    """Changes by objectives; the shade is the size, the number says which way."""
    names = list(parts[0]) if parts else []
    values = [[one.value if math.isfinite(one.value) else 0.0 for one in part.values()] for part in parts]
    largest = max((abs(v) for line in values for v in line), default=0.0)
    if not names or largest == 0:
        return None
    shades = [[abs(v) / largest if abs(v) >= _SEEN else 0.0 for v in line] for line in values]
    texts = [[signed(v, 1) if abs(v) >= _SEEN else "" for v in line] for line in values]
    labels = [row.label for row in results.perturbations]
    return heat_map(labels, names, shades, texts, alt=f"shift of each objective's {what} per change")
