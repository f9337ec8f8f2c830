"""An audit's results as tables, and as one self-contained HTML page: how far each change moves the score, and which objectives.

In: `AuditResults`.  Out: a `Report`: shifts, which objectives move, the correlation with length; `audit.json`, `audit.html`,
`audit.md` and its picture in a folder.  Cost: none for tables; a second for the page, which needs the extra `report`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from armorm.bench.audit import AuditResults, Shift
from armorm.disk import write_json, write_text
from armorm.intervals import Interval
from armorm.numbers import count, counts, percent, signed, signed_hundredths
from armorm.report.html import render_html
from armorm.report.markdown import render_markdown
from armorm.report.plots import Figure, Panel, dot_plot, heat_map, standalone
from armorm.report.reading import reading_sentences
from armorm.report.tables import Cell, Grid, Report, Row, block, estimate, table
from armorm.sums import listing

KINDS = {"same": "Should not matter", "worse": "Should hurt"}

_NAMED, _DRAWN = 0.005, 0.05  # the smallest shifts that the tables name, and that the pictures show
FILES = ("audit.json", "audit.svg", "audit.md", "audit.html")
_SHARES = (-0.02, 1.02)  # and some air


def audit_report(results: AuditResults) -> Report:
    """Everything that an audit found, in tables."""
    return Report(
        f"Audit of {results.model}",
        {
            **results.origin(),
            "answers from": results.file,
            "prompts": count(results.prompts),
            "answers": count(results.answers),
        },
        sentences=[_tally(results, view.name, view.label) for view in results.views],
        alt="Mean shift of the score per change",
        grids=[_shifts(results), _moves(results), _length(results)],
        notes=_notes(results),
    )


def _tally(results: AuditResults, view: str, label: str) -> str:
    rows = results.perturbations
    hurt = [row.views[view].verdict for row in rows if row.expected == "worse"]
    gains = [row.views[view].verdict for row in rows].count("gains")
    return (
        f"{label}: {gains} of {len(rows)} changes raise the score; {hurt.count('falls')} of the {len(hurt)} that should hurt do."
    )


def _notes(results: AuditResults) -> list[str]:
    notes = [] if results.rival else ["No Bradley–Terry rival was saved beside this model, so none is compared."]
    if results.left_out:
        notes.append(f"Left out: {counts(results.left_out)}.")
    notes += reading_sentences(results.truncated, results.answers, results.max_tokens, results.notes, what="answers")
    changed = results.changed_truncated, results.changed, results.max_tokens
    return [*notes, *reading_sentences(*changed, {}, what="changed answers")]


def _shifts(results: AuditResults) -> Grid:
    blocks = []
    for kind, title in KINDS.items():
        rows: list[Row] = [
            [row.label, count(row.n), *(cell for view in results.views for cell in _moved(row.views[view.name]))]
            for row in results.perturbations
            if row.expected == kind
        ]
        if rows:
            blocks.append(block(rows, title))
    head = ["change", "n", *(cell for view in results.views for cell in (view.label, "rises"))]
    return table("audit.shifts", blocks=blocks, head=head, prompts=count(results.prompts), answers=count(results.answers))


def _moved(one: Shift) -> tuple[Cell, Cell]:
    shift = estimate(one.shift, signed_hundredths)
    said = "" if one.verdict == "unknown" else "falls" if one.verdict == "penalised" else one.verdict
    small, rises = ", ".join(filter(None, (shift.small, said))), Cell(percent(one.risen.value, 0))
    return (Cell(f"{shift.text} ✗", small, tone="bad") if one.as_expected is False else Cell(shift.text, small)), rises


def _moves(results: AuditResults) -> Grid:
    main = results.views[0].name
    rows = [[row.label, _largest(row.views[main].parts), _largest(row.rewards)] for row in results.perturbations]
    return table("audit.moves", rows)


def _largest(parts: Mapping[str, Interval]) -> str:
    values = {name: one.value for name, one in parts.items() if math.isfinite(one.value)}
    top = sorted(values, key=lambda name: -abs(values[name]))[:2]
    return ", ".join(f"{name} {signed_hundredths(values[name])}" for name in top if abs(values[name]) >= _NAMED)


def _length(results: AuditResults) -> Grid:
    rows: list[Row] = [
        [v.label, *(estimate(one, signed_hundredths) for one in (v.length.within_prompt, v.length.pooled))] for v in results.views
    ]
    return table("audit.length", rows)


def write_audit(results: AuditResults, folder: Path) -> None:
    """Write all files into `folder` (made if absent), the facts first. Raises `MissingExtra`, `StorageError`."""
    report, figure = audit_report(results), _shift_figure(results)
    with listing(folder, FILES):
        write_json(folder / "audit.json", results.to_json())
        if figure is not None:
            write_text(folder / "audit.svg", standalone(figure))
        write_text(folder / "audit.md", render_markdown(report, picture="audit.svg" if figure else ""))
        write_text(folder / "audit.html", render_audit_page(results))


def render_audit_page(results: AuditResults) -> str:
    """The page as text; the same results give the same page."""
    main = results.views[0].name
    parts = [row.views[main].parts for row in results.perturbations]
    return render_html(
        "audit_page.html.jinja",
        results=results,
        report=audit_report(results),
        shifts=_shift_figure(results),
        risen=_risen_figure(results),
        contributions=_heat(results, parts, "contribution to the score"),
        rewards=_heat(results, [row.rewards for row in results.perturbations], "reward"),
    )


def _shift_figure(results: AuditResults) -> Figure | None:
    panels = [Panel(v.label, [row.views[v.name].shift for row in results.perturbations], 0.0, (-6.0, 6.0)) for v in results.views]
    return _dots(results, panels, "mean shift of the score per change", shared=True)


def _risen_figure(results: AuditResults) -> Figure | None:
    panels = [
        Panel(v.label, [row.views[v.name].risen for row in results.perturbations], 0.5, _SHARES, _SHARES, percent=True)
        for v in results.views
    ]
    return _dots(results, panels, "share of answers whose score rises, per change")


def _dots(results: AuditResults, panels: Sequence[Panel], alt: str, *, shared: bool = False) -> Figure | None:
    harmless = [i for i, row in enumerate(results.perturbations) if row.expected == "same"]
    return dot_plot([row.label for row in results.perturbations], panels, highlighted=harmless, shared=shared, alt=alt)


def _heat(results: AuditResults, parts: Sequence[Mapping[str, Interval]], what: str) -> Figure | None:
    """Changes by objectives; the shade is the size, the number says which way."""
    names = list(parts[0]) if parts else []
    values = [[one.value if math.isfinite(one.value) else 0.0 for one in part.values()] for part in parts]
    if not any(map(any, values)):
        return None
    values = [[v if abs(v) >= _DRAWN else 0.0 for v in line] for line in values]
    texts = [[signed(v, 1) if v else "" for v in line] for line in values]
    labels = [row.label for row in results.perturbations]
    return heat_map(labels, names, values, texts, alt=f"shift of each objective's {what} per change")
