"""An audit as one self-contained HTML page: how far each change moves the score, in every view, and which objectives move.

In: an audit's facts as plain JSON values.  Out: `audit.html`, `audit.md` and its picture in a folder.
Cost: a second; needs the extra `report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from armorm.report.numbers import interval, number, signed
from armorm.report.page import environment, write_page
from armorm.report.plots import Figure, Panel, common_limits, dot_plot, heat_map, standalone

_TEMPLATE = "audit_page.html.jinja"
_GROUPS = {"same": "Should not matter", "worse": "Should hurt"}
_WORDS = {
    "gains": "gains",
    "falls": "falls",
    "holds": "holds",
    "penalised": "falls",
    "not noticed": "not noticed",
    "unknown": "–",
}


def write_audit_page(results: Mapping[str, Any], folder: Path) -> Path:
    """Write `audit.html`, and `audit.md` with `audit.svg` for a repository's documents; return the page's path.

    Raises as `page.write_report` does.
    """
    write_page(standalone(_shifts(results["perturbations"], results["views"])), folder / "audit.svg")
    write_page(render_audit_markdown(results), folder / "audit.md")
    return write_page(render_audit_page(results), folder / "audit.html")


def render_audit_page(results: Mapping[str, Any]) -> str:
    """The page as text; the same facts give the same page."""
    views, rows = results["views"], results["perturbations"]
    groups = [(title, [r for r in rows if r["expected"] == key]) for key, title in _GROUPS.items()]
    parts = {
        "results": results,
        "words": _WORDS,
        "groups": [(title, part) for title, part in groups if part],
        "shifts": _shifts(rows, views) if rows else None,
        "risen": _risen(rows, views) if rows else None,
        "contributions": _grid(rows, _parts_of(rows, views[0]["name"]), "contribution to the score") if rows else None,
        "rewards": _grid(rows, [r["rewards"] for r in rows], "reward") if rows else None,
        "tally": [_tally(rows, v["name"]) | {"label": v["label"]} for v in views],
    }
    return str(environment().get_template(_TEMPLATE).render(**parts)).lstrip()


def render_audit_markdown(results: Mapping[str, Any]) -> str:
    """The shifts and the length correlations as Markdown tables, provenance first."""
    views = results["views"]
    labels = [view["label"] for view in views]
    shifts = [
        [row["label"], "not matter" if row["expected"] == "same" else "hurt", str(row["n"])]
        + [_moved(row["views"][view["name"]]) for view in views]
        for row in results["perturbations"]
    ]
    lengths = [[v["label"], *(_span(v["length"][kind]) for kind in ("within_prompt", "pooled"))] for v in views]
    head = "\n".join(f"- {name}: {results[name]}" for name in ("command", "commit", "machine", "prompts", "answers"))
    return (
        f"# Audit of {results['model']}\n\n{head}\n\nMean shift of the score in standard deviations of each view's scores over "
        "the unchanged answers, with 95 % intervals by prompt; ✗ marks what a good reward model would not do.\n\n"
        f"{_markdown(['change', 'should', 'n', *labels], shifts)}\n\n![Mean shift of the score per change](audit.svg)\n\n"
        "Rank correlation of score and length over the unchanged answers:\n\n"
        f"{_markdown(['view', 'within prompts', 'over all answers'], lengths)}\n"
    )


def _moved(view: Mapping[str, Any]) -> str:
    return _span(view["shift"]) + (" ✗" if view["as_expected"] is False else "")


def _span(raw: Mapping[str, Any]) -> str:
    if raw["value"] is None or raw["low"] is None:
        return signed(raw["value"], 2)
    return f"{signed(raw['value'], 2)} ({signed(raw['low'], 2)} to {signed(raw['high'], 2)})"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)


def _tally(rows: Sequence[Mapping[str, Any]], view: str) -> dict[str, Any]:
    said = [row["views"][view]["verdict"] for row in rows]
    hurt = [row["views"][view]["verdict"] for row in rows if row["expected"] == "worse"]
    return {"gains": said.count("gains"), "of": len(said), "falls": hurt.count("falls"), "of_hurt": len(hurt)}


def _shifts(rows: Sequence[Mapping[str, Any]], views: Sequence[Mapping[str, Any]]) -> Figure:
    columns = [[interval(row["views"][v["name"]]["shift"]) for row in rows] for v in views]
    limits = common_limits([one for column in columns for one in column], include=[0.0], low=-6.0, high=6.0)
    panels = [Panel(v["label"], column, 0.0, limits) for v, column in zip(views, columns, strict=True)]
    names = [row["label"] for row in rows]
    return dot_plot(names, panels, highlighted=_harmless(rows), alt="mean shift of the score per change")


def _risen(rows: Sequence[Mapping[str, Any]], views: Sequence[Mapping[str, Any]]) -> Figure:
    panels = [
        Panel(v["label"], [interval(row["views"][v["name"]]["risen"]) for row in rows], 0.5, (-0.02, 1.02), percent=True)
        for v in views
    ]
    names = [row["label"] for row in rows]
    return dot_plot(names, panels, highlighted=_harmless(rows), alt="share of answers whose score rises, per change")


def _harmless(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    return [i for i, row in enumerate(rows) if row["expected"] == "same"]


def _parts_of(rows: Sequence[Mapping[str, Any]], view: str) -> list[Mapping[str, Any]]:
    return [row["views"][view]["parts"] for row in rows]


def _grid(rows: Sequence[Mapping[str, Any]], parts: Sequence[Mapping[str, Any]], what: str) -> Figure | None:
    """Changes by objectives; the shade is the size, the number says which way."""
    names = list(parts[0])
    values = [[number((part.get(name) or {}).get("value")) or 0.0 for name in names] for part in parts]
    largest = max((abs(v) for line in values for v in line), default=0.0)
    if not names or largest == 0:
        return None
    shades = [[abs(v) / largest if abs(v) >= 0.05 else 0.0 for v in line] for line in values]
    texts = [[signed(v, 1) if abs(v) >= 0.05 else "" for v in line] for line in values]
    return heat_map([r["label"] for r in rows], names, shades, texts, alt=f"shift of each objective's {what} per change")
