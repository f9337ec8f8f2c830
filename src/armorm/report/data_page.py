"""A set of rows as one self-contained HTML page: what `data.inspect` found, with plots, and in words what to mind.

In: the facts as plain JSON values.  Out: `inspect.html` in a folder.  Cost: a second or two; needs the extra `report`.

Rows are hostile text: the template escapes everything but the figures, and the page forbids scripts and requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from armorm.intervals import Interval
from armorm.report.histograms import Histogram, histograms
from armorm.report.numbers import count, decimal, interval, percent, signed
from armorm.report.page import environment, write_page
from armorm.report.plots import Figure, Panel, common_limits, dot_plot, heat_map

_TEMPLATE = "data_page.html.jinja"
_STRONG = 0.3
_MARKED = 0.05
_NAMED = 6


def write_data_page(facts: Mapping[str, Any], folder: Path) -> Path:
    """Write `inspect.html` into `folder` (made if absent) and return its path. Raises as `page.write_report` does."""
    return write_page(render_data_page(facts), folder / "inspect.html")


def render_data_page(facts: Mapping[str, Any]) -> str:
    """The page as text; the same facts give the same page."""
    rated = [o for o in facts.get("objectives") or [] if o["n"]]
    parts = {
        "rated": rated,
        "unrated": [o["name"] for o in facts.get("objectives") or [] if not o["n"]],
        "ratings": _ratings(rated),
        "labels": _labels(rated, facts.get("patterns") or {}, facts["counts"]["rows"]),
        "lengths": _lengths(facts["lengths"]),
        "length_rows": _length_rows(facts),
        "correlations": _correlations(rated),
        "findings": findings(facts),
        "facts": facts,
        "head": _head(facts),
    }
    return str(environment().get_template(_TEMPLATE).render(**parts)).lstrip()


def findings(facts: Mapping[str, Any]) -> list[str]:
    """What to mind before these rows are used, in sentences made of the numbers alone."""
    counts = facts["counts"]
    found = [_left_out(counts)] if sum(counts["faults"].values()) + sum(counts["skipped"].values()) else []
    found += [_leak(one) for one in facts["leakage"] if one["exact"]["prompts"] or one["near"]["prompts"]]
    found += _follow_length(facts.get("objectives") or [])
    longer = interval((facts.get("longer_chosen") or {}).get("characters"))
    if longer is not None:
        found.append(
            f"The longer answer was chosen in {percent(longer.value)} of pairs of unequal length{_between(longer, percent)}."
        )
    answers = facts["duplicates"]
    if answers["repeated"] > _MARKED * answers["answers"]:
        found.append(f"{percent(answers['repeated'] / answers['answers'])} of answers were there before, letter by letter.")
    return found


def _left_out(counts: Mapping[str, Any]) -> str:
    faulty, skipped = sum(counts["faults"].values()), sum(counts["skipped"].values())
    return (
        f"{count(counts['rows'])} of {count(counts['records'])} records became rows: {count(faulty)} are faulty, "
        f"{count(skipped)} are left out on purpose."
    )


def _leak(one: Mapping[str, Any]) -> str:
    parts = [
        f"{count(part['prompts'])} prompt{'s' if part['prompts'] > 1 else ''} {how} ({count(part['rows'])} rows)"
        for how, part in (("exactly", one["exact"]), ("nearly", one["near"]))
        if part["prompts"]
    ]
    return f"{one['benchmark']} shares {' and '.join(parts)} with these rows."


def _follow_length(objectives: Sequence[Mapping[str, Any]]) -> list[str]:
    rhos = [(str(o["name"]), rho) for o in objectives if (rho := interval(o["length"]["spearman"])) is not None]
    strong = sorted(((n, rho) for n, rho in rhos if abs(rho.value) >= _STRONG), key=lambda r: -abs(r[1].value))
    if not strong:
        return []
    listed = ", ".join(f"{name} {_rho(rho.value)}" for name, rho in strong[:_NAMED])
    more = f" and {len(strong) - _NAMED} more" if len(strong) > _NAMED else ""
    return [f"Ratings that follow the answer's length (Spearman, {_STRONG:g} or more either way): {listed}{more}."]


def _rho(value: Any) -> str:
    return signed(value, 2)


def _between(one: Interval, write: Callable[[Any], str]) -> str:
    return f" (95 % interval {write(one.low)} to {write(one.high)})" if math.isfinite(one.low) else ""


def _head(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts, per_prompt = facts["counts"], facts["rows_per_prompt"]
    answers = facts["lengths"].get("answer") or facts["lengths"].get("chosen")
    words = (answers or {}).get("words")
    cells = [
        ("rows" if facts["kind"] == "ratings" else "pairs", count(counts["rows"])),
        ("records read", count(counts["records"])),
        ("prompts", count(counts["prompts"])),
        ("rows per prompt", decimal(per_prompt["mean"], 1) if per_prompt else ""),
        ("objectives", str(sum(bool(o["n"]) for o in facts.get("objectives") or [])) if facts["kind"] == "ratings" else ""),
        ("words in an answer (median)", count(words["median"]) if words else ""),
    ]
    return [(name, value) for name, value in cells if value]


def _ratings(rated: list[Mapping[str, Any]]) -> Figure | None:
    panels = [
        Histogram(
            o["name"],
            f"mean {decimal(o['mean'], 2)}, n {count(o['n'])}",
            o["histogram"].get("values") or o["histogram"]["edges"],
            [float(n) for n in o["histogram"]["counts"]],
            o["min"],
            o["max"],
            mark=o["mean"],
        )
        for o in rated
        if math.isfinite(o["max"] - o["min"])
    ]
    return histograms(panels, alt="Ratings by objective") if panels else None


def _labels(rated: list[Mapping[str, Any]], patterns: Mapping[str, Any], rows: int) -> Figure | None:
    listed = patterns.get("most") or []
    if not rated or not listed:
        return None
    columns = ["all rows", *(f"{i}: {percent(one['share'])}" for i, one in enumerate(listed, 1))]
    shades = [[o["n"] / rows, *(0.5 * (o["name"] in one["objectives"]) for one in listed)] for o in rated]
    texts = [[percent(o["n"] / rows), *("yes" if o["name"] in one["objectives"] else "" for one in listed)] for o in rated]
    return heat_map([o["name"] for o in rated], columns, shades, texts, alt="Labels by objective and pattern")


def _lengths(lengths: Mapping[str, Any]) -> Figure | None:
    panels = [
        Histogram(
            f"{name}: {measure}",
            f"median {count(one['median'])}, longest {count(one['max'])}",
            one["histogram"]["edges"],
            [float(n) for n in one["histogram"]["counts"]],
            one["histogram"]["edges"][0],
            one["histogram"]["edges"][-1],
            logarithmic=one["histogram"]["edges"][0] >= 1,
            mark=max(one["median"], one["histogram"]["edges"][0]),
        )
        for measure in ("words", "characters")
        for name, both in lengths.items()
        if name != "turns" and (one := both[measure]) is not None
    ]
    return histograms(panels, alt="Lengths of prompts and answers") if panels else None


def _length_rows(facts: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    lengths = facts["lengths"]
    rows = [(f"{n}, {m}", lengths[n][m]) for n in lengths if n != "turns" for m in ("words", "characters")]
    rows += [("questions in a conversation", lengths["turns"]), ("rows of a prompt", facts["rows_per_prompt"])]
    return [(name, one) for name, one in rows if one]


def _correlations(rated: list[Mapping[str, Any]]) -> Figure | None:
    panels = []
    for key, title in (("spearman", "Spearman ρ"), ("pearson", "Pearson r")):
        cells = [interval(o["length"][key]) for o in rated]
        if any(cells):
            panels.append(Panel(title, cells, 0.0, common_limits(cells, include=[-0.1, 0.0, 0.1], low=-1.02, high=1.02)))
    named = [str(o["name"]) for o in rated]
    alt = "Correlation of each objective with the answer's length"
    return dot_plot(named, panels, highlighted=range(len(named)), alt=alt) if panels else None
