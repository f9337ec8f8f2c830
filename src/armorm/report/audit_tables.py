"""An audit's results as tables.

In: `AuditResults`.  Out: a `Report`: shifts, which objectives move, the correlation with length.  Cost: none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from armorm.bench.audit_results import AuditResults, ChangeFacts, Shift
from armorm.intervals import Interval
from armorm.numbers import count, counts, percent, signed_hundredths
from armorm.report.tables import Block, Cell, Grid, Report, estimate, grid

KINDS = {"same": "Should not matter", "worse": "Should hurt"}

_SHIFTS = (
    "The unit is one standard deviation of each view's own scores over the unchanged answers. Intervals are 95 % and resample "
    "whole "
    "prompts; “gains” and “falls” mean that zero lies outside. ✗ marks what a good reward model would not do; “rises” is the "
    "share of answers whose score does."
)
_LENGTH = (
    "Rank correlation of the score with the answer's tokens over the unchanged answers. Within prompts, answers are compared "
    "with others to the same prompt only."
)
_MOVES = "The largest shifts of contributions to the model's score, and of rewards before debiasing in their own deviations."
_SEEN = 0.005


def audit_report(results: AuditResults) -> Report:
    """Everything that an audit found, in tables."""
    return Report(
        f"Audit of {results.model}",
        {
            "command": results.command,
            "commit": results.commit or "",
            "machine": results.machine,
            "created": results.created,
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
    if results.truncated:
        notes.append(f"{count(results.truncated)} answers did not fit the model's length and lost their oldest part.")
    return notes


def _shifts(results: AuditResults) -> Grid:
    views = [view.name for view in results.views]
    blocks = []
    for kind, title in KINDS.items():
        rows = [row for row in results.perturbations if row.expected == kind]
        if rows:
            blocks.append(Block(title, [_row(row, views) for row in rows]))
    head = [Cell("change"), Cell("n"), *(cell for view in results.views for cell in (Cell(view.label), Cell("rises")))]
    title = f"Shift of the score: {count(results.prompts)} prompts, {count(results.answers)} answers"
    return Grid("shifts", title, _SHIFTS, head, blocks)


def _row(row: ChangeFacts, views: list[str]) -> list[Cell]:
    return [Cell(row.label), Cell(count(row.n)), *(cell for view in views for cell in _moved(row.views[view]))]


def _moved(one: Shift) -> tuple[Cell, Cell]:
    shift = estimate(one.shift, signed_hundredths)
    said = "" if one.verdict == "unknown" else "falls" if one.verdict == "penalised" else one.verdict
    small, rises = ", ".join(filter(None, (shift.small, said))), Cell(percent(one.risen.value, 0))
    return (Cell(f"{shift.text} ✗", small, tone="bad") if one.as_expected is False else Cell(shift.text, small)), rises


def _moves(results: AuditResults) -> Grid:
    main = results.views[0].name
    rows = [[row.label, _largest(row.views[main].parts), _largest(row.rewards)] for row in results.perturbations]
    return grid("moves", "What moves", ("change", "score", "rewards"), rows, lead=_MOVES, words=(0, 1, 2))


def _largest(parts: Mapping[str, Interval]) -> str:
    values = {name: one.value for name, one in parts.items() if math.isfinite(one.value)}
    top = sorted(values, key=lambda name: -abs(values[name]))[:2]
    return ", ".join(f"{name} {signed_hundredths(values[name])}" for name in top if abs(values[name]) >= _SEEN)


def _length(results: AuditResults) -> Grid:
    rows = [
        [Cell(v.label), *(estimate(one, signed_hundredths) for one in (v.length.within_prompt, v.length.pooled))]
        for v in results.views
    ]
    head = ("view", "within prompts", "over all answers")
    return grid("length", "Score and length", head, rows, lead=_LENGTH)
