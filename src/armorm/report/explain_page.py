"""An explanation as one self-contained HTML page: the sentence, the difference, each answer's terms, the gate and its like.

In: an `Explained`.  Out: a page.  Cost: none; needs jinja2 (extra `report`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from armorm.disk import write_text
from armorm.numbers import count, decimal, percent, signed
from armorm.report.bars import Bar, Level, level_bars, term_bars
from armorm.report.explained import Explained, alike_grid
from armorm.report.html import render_html
from armorm.report.tables import Grid, grid
from armorm.scoring.explain import Change, Difference, Explanation, Term

_TEMPLATE = "explain_page.html.jinja"


def write_explain_page(explained: Explained, path: Path) -> None:
    """Write the page. Raises `MissingExtra` without jinja2, `StorageError` where it can't be written."""
    write_text(path, render_explain_page(explained))


def render_explain_page(explained: Explained) -> str:
    """The page as text; the same explanation gives the same page."""
    gap, found = explained.difference, explained.explanations
    first = next(iter(explained.prompts.values()))
    common = all(one == first for one in explained.prompts.values())
    sentences = [gap.sentence] if gap else [one.sentence for one in found.values()]
    return render_html(
        _TEMPLATE,
        explained=explained,
        title=_title(explained),
        headline=_join_percent(sentences[0]) if sentences else "",
        prompt=first if common else (),
        head=_head(explained),
        answers=_answers(explained, common=common),
        difference=gap,
        moves=_moves(gap) if gap else (),
        numbers=_numbers(gap) if gap else None,
        gate=_gate(explained.gate),
        gate_as_trained=_gate(explained.gate_as_trained),
        alike=alike_grid(explained.alike),
    )


def _join_percent(sentence: str) -> str:
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _title(explained: Explained) -> str:
    if explained.difference is not None:
        return "What makes the difference"
    return "What the score is the sum of" if explained.explanations else "What the prompt weighs"


def _head(explained: Explained) -> list[tuple[str, str]]:
    head = [("model", explained.model)]
    if explained.profile is not None:
        head.append(("profile", explained.profile))
    for label, one in explained.explanations.items():
        above = "" if one.percentile is None else f" (above {one.percentile:.0f} % of {count(one.answers)} reference answers)"
        head.append((label, f"{signed(one.score.score)}{above}"))
    return head


def _answers(explained: Explained, *, common: bool) -> list[dict[str, Any]]:
    found = explained.explanations
    if not found:
        return []
    terms = explained.difference.terms if explained.difference else next(iter(found.values())).terms
    order = [term.term for term in terms]
    ordered = [sorted(one.terms, key=lambda t: order.index(t.term)) for one in found.values()]
    columns = term_bars([[Bar(t.term, t.contribution, _term_title(t), t.kind) for t in rows] for rows in ordered])
    return [
        {
            "label": label,
            "text": explained.answers[label],
            "prompt": () if common else explained.prompts[label],
            "score": one.score.score,
            "truncated": one.score.truncated,
            "sentence": _join_percent(one.sentence),
            "bars": bars,
            "terms": _terms(label, one, rows),
        }
        for (label, one), bars, rows in zip(found.items(), columns, ordered, strict=True)
    ]


def _terms(label: str, one: Explanation, rows: Sequence[Term]) -> Grid:
    above = any(t.percentile is not None for t in rows)
    trained = any(t.gate_as_trained is not None for t in rows)
    lines = [
        [
            t.term,
            decimal(t.reward),
            decimal(t.raw, 2),
            *([decimal(t.percentile, 0)] if above else []),
            *([percent(t.gate_as_trained)] if trained else []),
            percent(t.gate),
            signed(t.coefficient, 4),
            signed(t.contribution, 4),
            percent(t.share, 0),
        ]
        for t in rows
    ]
    head = [
        *("term", "reward", "raw scale"),
        *(["above … % of reference answers"] if above else []),
        *(["gate as trained"] if trained else []),
        *("gate", "coefficient", "contribution", "share"),
    ]
    return grid("terms", f"{label}: all {len(one.terms)} terms", head, lines)


def _term_title(t: Term) -> str:
    raw = "" if t.raw is None else f" (raw {decimal(t.raw, 2)})"
    return f"reward {decimal(t.reward)}{raw} × coefficient {signed(t.coefficient)}"


def _moves(gap: Difference) -> list[Bar]:
    return term_bars([[Bar(t.term, t.delta, _change_title(t), t.kind, t.share) for t in gap.terms]])[0]


def _change_title(t: Change) -> str:
    return f"reward {decimal(t.reward_a)} against {decimal(t.reward_b)}, coefficient {signed(t.coefficient_a)}"


def _numbers(gap: Difference) -> Grid:
    a, b = gap.names
    weighed = (
        ["coefficient"] if gap.same_weights else [f"coefficient {a}", f"coefficient {b}", "by the answers", "by the weights"]
    )
    rows = []
    for t in gap.terms:
        rest = (t.coefficient_a,) if gap.same_weights else (t.coefficient_a, t.coefficient_b, t.by_answers, t.by_weights)
        rows.append([t.term, decimal(t.reward_a), decimal(t.reward_b), *(signed(x, 4) for x in (*rest, t.delta))])
    return grid("numbers", "Numbers", ("term", a, b, *weighed, "difference"), rows)


def _gate(gate: Mapping[str, float]) -> list[Level]:
    ordered = dict(sorted(gate.items(), key=lambda g: -g[1]))
    return level_bars(ordered, percent, chosen=next(iter(ordered), ""))
