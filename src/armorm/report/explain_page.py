"""An explanation as one self-contained HTML page: the sentence, the difference, each answer's terms, the gate and its like.

In: an explanation as plain JSON values (`armorm explain --html`).  Out: a page.  Cost: none; needs jinja2 (extra `report`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from armorm.report.page import environment, write_page

_TEMPLATE = "explain_page.html.jinja"
_SEEN, _FEW = 0.005, 2


def write_explain_page(facts: Mapping[str, Any], path: Path) -> Path:
    """Write the page and return its path. Raises as `page.write_report` does."""
    return write_page(render_explain_page(facts), path)


def render_explain_page(facts: Mapping[str, Any]) -> str:
    """The page as text; the same facts give the same page.

    `answers`: label, text and an `Explanation`'s JSON each; `difference`: a `Difference`'s, or None; `gate`, `gate_as_trained`;
    `alike`: prompts with source and distance; `prompt`: messages.
    """
    gap = facts.get("difference")
    parts = {
        "facts": facts,
        "headline": _unbroken(gap["sentence"] if gap else next((a["sentence"] for a in facts["answers"]), "")),
        "title": _title(facts),
        "answers": _answers(facts["answers"], gap),
        "difference": gap and {**gap, "bars": _bars(gap["rows"], "delta", _large([gap["rows"]], "delta"))},
        "gate": _gate(facts["gate"], facts.get("gate_as_trained") or {}),
    }
    jinja = environment()
    jinja.filters["share"] = _share
    return str(jinja.get_template(_TEMPLATE).render(**parts)).lstrip()


def _unbroken(sentence: str) -> str:
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _share(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-", "−").replace("−0 ", "0 ")


def _title(facts: Mapping[str, Any]) -> str:
    if facts.get("difference"):
        return "What makes the difference"
    return "What the score is the sum of" if facts["answers"] else "What the prompt weighs"


def _answers(answers: Sequence[Mapping[str, Any]], gap: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    # One scale for all, and the same terms in the same order, so that rows can be compared across.
    order = [row["term"] for row in (gap or answers[0])["rows"]] if answers else []
    large = _large([one["rows"] for one in answers], "contribution")
    reach = max((abs(row["contribution"]) for one in answers for row in one["rows"]), default=0.0)
    drawn = []
    for one in answers:
        rows = sorted(one["rows"], key=lambda row: order.index(row["term"]))
        has = {key: any(row.get(key) is not None for row in rows) for key in ("percentile", "gate_as_trained")}
        drawn.append(
            {
                **one,
                "sentence": _unbroken(one["sentence"]),
                "rows": rows,
                "bars": _bars(rows, "contribution", large, reach),
                "has": has,
            }
        )
    return drawn


def _large(several: Sequence[Sequence[Mapping[str, Any]]], key: str) -> set[str]:
    # Terms whose bar can be seen in one of the columns; a few that can't are left where they are.
    reach = max((abs(row[key]) for rows in several for row in rows), default=0.0)
    large = {row["term"] for rows in several for row in rows if abs(row[key]) >= _SEEN * reach}
    every = {row["term"] for rows in several for row in rows}
    return large if len(every) - len(large) > _FEW else every


def _bars(rows: Sequence[Mapping[str, Any]], key: str, large: set[str], reach: float = 0.0) -> list[dict[str, Any]]:
    most = reach or max((abs(row[key]) for row in rows), default=0.0) or 1.0
    small = [row for row in rows if row["term"] not in large]
    rest = {"term": f"{len(small)} smaller terms", "kind": "rest", key: sum(row[key] for row in small)}
    rest["share"] = None if any(row["share"] is None for row in small) else sum(row["share"] for row in small)
    shown = [row for row in rows if row["term"] in large] + ([rest] if small else [])
    return [{**row, "width": round(50 * abs(row[key]) / most, 2)} for row in shown]


def _gate(gate: Mapping[str, float], as_trained: Mapping[str, float]) -> list[dict[str, Any]]:
    most = max([*gate.values(), *as_trained.values()], default=0.0) or 1.0
    return [
        {"name": name, "weight": weight, "width": round(100 * weight / most, 2), "as_trained": as_trained.get(name)}
        for name, weight in sorted(gate.items(), key=lambda g: -g[1])
    ]
