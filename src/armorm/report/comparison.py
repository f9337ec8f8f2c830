"""A comparison's results as tables of plain text, before anyone has chosen between terminal, Markdown, LaTeX and HTML.

In: the results of a comparison as JSON values.  Out: `Grid`s of `Cell`s (raw text: whoever renders them escapes it).  Cost: none.

Rows are methods, grouped by family; columns are the overall figure and the suite's sections, then the paired difference to each
reference with its p. Published rows stand in a block of their own, in a table of their own where they share no section with the
suite. The highest value of a column is marked among our own rows only, and by what is printed: two rows that both show 66.1 are
both marked. A row that has values of fewer items than the column's n says how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from armorm.intervals import Interval
from armorm.report.numbers import (
    DASH,
    compact_count,
    count,
    decimal,
    duration,
    general,
    interval,
    number,
    p_value,
    percent,
    points,
    signed,
)

Results = Mapping[str, Any]

FAMILIES = {
    "armorm": "ArmoRM",
    "ablation": "ArmoRM, one thing changed",
    "bradley-terry": "Bradley–Terry",
    "pairwise": "Pairwise preference models",
    "judge": "Language models as judges",
    "regression": "Regression",
    "baseline": "Baselines",
}
"""Families in the order of the tables; others follow in order of appearance, under their own name."""

ACCURACY = (
    "Accuracy in %, with 95 % intervals that resample whole prompts. Bold: the highest value of a column as printed. Differences "
    "are paired, item by item; p is two-sided and not corrected for the number of rows."
)
PUBLISHED = "Published: other backbones, other data, not comparable row by row"
_ELSEWHERE_MEASURED = "Other backbones and other data: a scale to look at, not comparable row by row."
_COSTS = "What each method took here, scoring summed over the suites; one machine, so times compare rows rather than systems."
_POSITION = (
    "Each pair is shown in both orders. “First preferred” is how often the answer shown first wins, 50 % without position bias; "
    "“flips” is how often the two orders disagree."
)
_PROBES = (
    "Pearson correlation of predicted and given ratings on held-out prompts, with 95 % intervals that resample whole prompts. "
    "The mean is over the objectives; the last line is each mean less the first column's, on the same ratings."
)
_PARTS = {"training": "time", "tokens": "training", "steps": "training", "examples": "training", "scoring": "time"}
_PARTS |= dict.fromkeys(("answers", "tokens in", "tokens out"), "scoring")
_ELSEWHERE = {"cost_usd", "seconds", "tokens_in", "tokens_out"}  # usage that has a column of its own


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what goes in small type under or behind it, and whether it is the best of its column."""

    text: str = DASH
    small: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Block:
    """Rows under one title (often none); `family` is a key of `FAMILIES`, "published", or ""."""

    title: str
    rows: Sequence[Sequence[Cell]]
    family: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: the first `words` columns hold words, the others numbers. `detail`: for readers who unfold it."""

    name: str
    title: str
    lead: str
    head: Sequence[Cell]
    blocks: Sequence[Block]
    remarks: Sequence[str] = ()
    words: int = 1
    detail: bool = False


@dataclass(frozen=True)
class Method:
    """A method as the tables name it."""

    name: str
    label: str
    family: str
    backbone: str
    note: str
    skipped: str


@dataclass(frozen=True)
class Comparison:
    """Everything to show: a `Grid` per suite with its headline, then probes, costs, position bias, and what was not run.

    `references`: labels of the methods that the paired tests are against.
    """

    name: str
    facts: Mapping[str, str]
    references: Sequence[str]
    headlines: Sequence[tuple[str, str]]  # of suite titles and sentences
    suites: Sequence[Grid]
    others: Sequence[Grid]
    notes: Sequence[str]


def comparison(results: Results) -> Comparison:
    """The tables of a comparison, in the order in which they are read."""
    known = methods_of(results)
    suites = results.get("suites") or []
    others = [
        _published_alone(suites),
        _probes(results),
        _costs(results, known),
        _costs_by_suite(results, known),
        _position(results, known),
    ]
    others.append(_not_run(known))
    own = [f"{one.label}: {one.note}" for one in known.values() if one.note]
    return Comparison(
        plain(results.get("name")) or "comparison",
        _facts(results),
        [known[name].label for name in _references(results, known)],
        [(suite_title(s), headline(s, results, known)) for s in suites if _figures(s)],
        [_accuracy(s, results, known) for s in suites],
        [grid for grid in others if grid is not None],
        own + [plain(note) for note in results.get("notes") or []],
    )


def methods_of(results: Results) -> dict[str, Method]:
    """Every method by name, those that were not run too, family by family."""
    found = [_method(one) for one in results.get("methods") or []]
    listed = {one.name for one in found}
    for suite in results.get("suites") or []:
        for row in suite.get("methods") or []:
            if row["method"] not in listed:
                found.append(_method(row))
                listed.add(row["method"])
    order = list(dict.fromkeys([*FAMILIES, *(one.family for one in found)]))
    return {one.name: one for one in sorted(found, key=lambda one: order.index(one.family))}


def by_family(methods: Iterable[Method]) -> dict[str, list[Method]]:
    """Methods in their order, under their families'."""
    found: dict[str, list[Method]] = {}
    for one in methods:
        found.setdefault(one.family, []).append(one)
    return found


def family_title(family: str) -> str:
    return FAMILIES.get(family, family or "Other")


def drawn_references(found: Comparison) -> str:
    """What the plot's upright lines stand for; "" where there are none."""
    kinds = ("dashed", "dotted", *["dotted"] * len(found.references))
    return "; ".join(f"{kind}: {label}" for kind, label in zip(kinds, found.references, strict=False))


def plain(value: Any) -> str:
    """One line of printable text."""
    line = " ".join(("" if value is None else str(value)).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def headline(suite: Mapping[str, Any], results: Results, known: Mapping[str, Method]) -> str:
    """The first ArmoRM row (else the first row) beside each reference and the highest row, in one or two sentences."""
    rows = _figures(suite)
    ordered = [name for name in known if name in rows]
    subject = ordered[0]
    value = rows[subject]["overall"]
    text = f"{known[subject].label}: {percent(value['value'])}{_between(interval(value))}"
    for reference in _references(results, known):
        gap = interval(_against(rows[subject], reference).get("difference"))
        if gap is not None:
            p = _equals(_against(rows[subject], reference).get("p"))
            text += f"; {points(gap.value)} points over {known[reference].label} ({_signed_ends(gap) or 'no interval'}; p {p})"
    highest = max(ordered, key=lambda name: rows[name]["overall"]["value"])
    if rows[highest]["overall"]["value"] <= value["value"]:
        return f"{text}. No row is higher." if len(ordered) > 1 else f"{text}."
    return f"{text}. Highest: {known[highest].label}, {percent(rows[highest]['overall']['value'])}."


def _method(one: Mapping[str, Any]) -> Method:
    label = plain(one.get("label")) or plain(one["method"])
    words = (plain(one.get(key)) for key in ("backbone", "note", "skipped"))
    return Method(str(one["method"]), label, plain(one.get("family")), *words)


def _facts(results: Results) -> dict[str, str]:
    """Provenance, as far as it is known."""
    backbone = results.get("backbone") or {}
    facts = {name: plain(results.get(name)) for name in ("command", "commit", "version", "machine", "created")}
    facts["backbone"] = ", ".join(plain(backbone[key]) for key in ("model", "dtype") if backbone.get(key))
    facts["this call took"] = duration(results["seconds"]) if number(results.get("seconds")) is not None else ""
    return {name: value for name, value in facts.items() if value}


def _references(results: Results, known: Mapping[str, Method]) -> list[str]:
    """Methods that the paired tests are against and that were run."""
    return [name for name in results.get("references") or [] if name in known and not known[name].skipped]


def _against(row: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    """A row's paired difference to a reference; empty where there is none."""
    return (row.get("versus") or {}).get(reference) or {}


def _figures(suite: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Rows of a suite that have an overall value, by method."""
    rows = suite.get("methods") or []
    return {row["method"]: row for row in rows if interval(row.get("overall")) is not None}


def _accuracy(suite: Mapping[str, Any], results: Results, known: Mapping[str, Method]) -> Grid:
    rows = {row["method"]: row for row in suite.get("methods") or []}
    published = (suite.get("published") or []) if _comparable(suite) else []
    sections = list(dict.fromkeys([*(suite.get("sections") or []), *_sections(published)]))
    references = [name for name in _references(results, known) if name in rows]
    columns = {name: _column(rows, name, sections) for name in rows}
    best = [_highest([cells[place] for cells in columns.values()]) for place in range(len(sections) + 1)]
    sizes = [_most([cells[place] for cells in columns.values()]) for place in range(len(sections) + 1)]
    blocks = []
    for family, members in by_family(known[name] for name in known if name in rows).items():
        lines = [
            [
                Cell(one.label, one.backbone),
                *(_share(cell, top, most) for cell, top, most in zip(columns[one.name], best, sizes, strict=True)),
                *(cell for reference in references for cell in _versus(rows[one.name], reference)),
            ]
            for one in members
        ]
        blocks.append(Block(family_title(family), lines, family))
    marks = _marks(published)
    if published:
        blocks.append(Block(PUBLISHED, [_published(row, sections, 2 * len(references), marks) for row in published], "published"))
    head = [Cell("method", "backbone"), *(Cell(plain(n), _n(s)) for n, s in zip(["overall", *sections], sizes, strict=True))]
    for reference in references:
        head += [Cell(f"over {known[reference].label}", "points"), Cell("p")]
    return Grid(
        plain(suite["name"]),
        suite_title(suite),
        ACCURACY,
        head,
        blocks,
        [*_remarks(suite, rows, known), *_footnotes(marks)],
    )


def _column(rows: Mapping[str, Mapping[str, Any]], name: str, sections: Sequence[str]) -> list[Mapping[str, Any] | None]:
    row = rows[name]
    return [row.get("overall"), *((row.get("sections") or {}).get(section) for section in sections)]


def _highest(cells: Sequence[Mapping[str, Any] | None]) -> str:
    """What the best of these prints; "" where nothing has a value."""
    values = [one.value for cell in cells if (one := interval(cell)) is not None]
    return _shown(max(values)) if values else ""


def _shown(value: Any) -> str:
    return percent(value).removesuffix(" %")


def _share(figure: Mapping[str, Any] | None, best: str = "", most: float | None = None) -> Cell:
    one, n = interval(figure), number((figure or {}).get("n"))
    if one is None:
        return Cell()
    fewer = _n(n) if most is not None and n is not None and n < most else ""
    return Cell(_shown(one.value), ", ".join(filter(None, (_ends(one), fewer))), _shown(one.value) == best)


def _ends(one: Interval | None) -> str:
    if one is None or not (math.isfinite(one.low) and math.isfinite(one.high)):
        return ""
    return f"{_shown(one.low)}–{_shown(one.high)}"


def _signed_ends(one: Interval) -> str:
    known = math.isfinite(one.low) and math.isfinite(one.high)
    return f"{points(one.low)} to {points(one.high)}" if known else ""


def _between(one: Interval | None) -> str:
    ends = _ends(one)
    return f" ({ends})" if ends else ""


def _equals(p: Any) -> str:
    written = p_value(p)
    return written if written.startswith("<") else f"= {written}"


def _versus(row: Mapping[str, Any], reference: str) -> list[Cell]:
    versus = _against(row, reference)
    gap = interval(versus.get("difference"))
    if gap is None:
        return [Cell(), Cell()]
    return [Cell(points(gap.value), _signed_ends(gap)), Cell(p_value(versus.get("p")))]


def _most(cells: Sequence[Mapping[str, Any] | None]) -> float | None:
    """The number of items in a column, by the method that scored most of them."""
    return max((n for cell in cells if (n := number((cell or {}).get("n"))) is not None), default=None)


def _n(size: float | None) -> str:
    return "" if size is None else f"n = {count(size)}"


def _comparable(suite: Mapping[str, Any]) -> bool:
    """Whether the suite has a section that published rows have too."""
    return not set(suite.get("sections") or []).isdisjoint(_sections(suite.get("published") or []))


def _sections(published: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in published for name in row.get("sections") or {}))


def _published_alone(suites: Sequence[Mapping[str, Any]]) -> Grid | None:
    """Published rows that share no section with the suite they are given for; each once."""
    found: list[Mapping[str, Any]] = []
    for suite in suites:
        found += [row for row in suite.get("published") or [] if not _comparable(suite) and row not in found]
    if not found:
        return None
    sections, marks = _sections(found), _marks(found)
    head = [Cell("method", "backbone"), *(Cell(plain(name)) for name in ("overall", *sections))]
    rows = [_published(row, sections, 0, marks) for row in found]
    return Grid("published", "Published results", _ELSEWHERE_MEASURED, head, [Block("", rows, "published")], _footnotes(marks))


def _footnotes(marks: Mapping[str, int]) -> list[str]:
    return [f"[{mark}] {said}" for said, mark in marks.items()]


def _marks(published: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Footnotes of the published rows: source and note, numbered once each."""
    return {said: mark for mark, said in enumerate(dict.fromkeys(map(_said, published)), start=1)}


def _said(row: Mapping[str, Any]) -> str:
    source, note = plain(row.get("source")), plain(row.get("note"))
    return f"{source}: {note}" if source and note else source or note


def _published(row: Mapping[str, Any], sections: Sequence[str], blanks: int, marks: Mapping[str, int]) -> list[Cell]:
    given = row.get("sections") or {}
    values = [row.get("overall"), *(given.get(name) for name in sections)]
    label = f"{plain(row['label'])} [{marks[_said(row)]}]"
    return [Cell(label, plain(row.get("base_model"))), *(Cell(_shown(v)) for v in values), *[Cell("")] * blanks]


def _remarks(suite: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], known: Mapping[str, Method]) -> list[str]:
    shown = f"{count(suite.get('n'))}{part_of(suite)}"
    found = [f"{shown} items of {count(suite.get('groups'))} prompts; rule: {plain(suite.get('rule')) or DASH}."]
    if missing := suite.get("missing"):
        found.append(
            f"Not in these files: {len(missing)} of the official aggregate's subsets ({', '.join(map(plain, missing))}); the "
            "overall value is not that of a full run."
        )
    for key in ("ties", "unscored"):
        some = {name: size for name in known if (size := number(((rows.get(name) or {}).get("overall") or {}).get(key)))}
        if some:
            found.append(f"{key.capitalize()}: {', '.join(f'{known[name].label} {count(size)}' for name, size in some.items())}.")
    return found


def _costs(results: Results, known: Mapping[str, Method]) -> Grid | None:
    facts = {one["method"]: one for one in results.get("methods") or [] if not one.get("skipped")}
    if not facts:
        return None
    columns = {
        "training": {name: _spent(facts[name].get("training"), "seconds") for name in facts},
        "tokens": {name: _amount((facts[name].get("training") or {}).get("tokens")) for name in facts},
        "steps": {name: count((facts[name].get("training") or {}).get("steps")) for name in facts},
        "examples": {name: count((facts[name].get("training") or {}).get("examples")) for name in facts},
        "scoring": {name: _spent(_total(facts[name]), "seconds") for name in facts},
        "answers": {name: count(_total(facts[name]).get("answers")) for name in facts},
        "tokens in": {name: _amount(_total(facts[name]).get("tokens_in")) for name in facts},
        "tokens out": {name: _amount(_total(facts[name]).get("tokens_out")) for name in facts},
        "cost, USD": {name: general((facts[name].get("usage") or {}).get("cost_usd")) for name in facts},
        "calls": {name: _calls(facts[name].get("usage") or {}) for name in facts},
    }
    shown = {title: cells for title, cells in columns.items() if any(cell != DASH for cell in cells.values())}
    blocks = [
        Block(
            family_title(family),
            [[Cell(one.label, one.backbone), *(Cell(shown[title][one.name]) for title in shown)] for one in members],
            family,
        )
        for family, members in by_family(known[name] for name in known if name in facts).items()
    ]
    return Grid("cost", "Cost", _COSTS, [Cell("method", "backbone"), *(Cell(t, _PARTS.get(t, "")) for t in shown)], blocks)


def _spent(part: Mapping[str, Any] | None, key: str) -> str:
    return duration((part or {}).get(key))


def _amount(tokens: Any) -> str:
    """A large count in few characters; zero is zero."""
    value = number(tokens)
    return DASH if value is None else compact_count(value) or "0"


def _total(method: Mapping[str, Any]) -> dict[str, float]:
    """Each cost of scoring over all suites that state it."""
    total: dict[str, float] = {}
    for one in (method.get("scoring") or {}).values():
        for key, raw in (one or {}).items():
            if (value := number(raw)) is not None:
                total[key] = total.get(key, 0.0) + value
    return total


def _calls(usage: Mapping[str, Any]) -> str:
    known = {key: value for key, raw in usage.items() if key not in _ELSEWHERE and (value := number(raw)) is not None}
    written = [f"{plain(key).replace('_', ' ')} {count(v) if v == round(v) else general(v)}" for key, v in known.items()]
    return ", ".join(written) or DASH


def _costs_by_suite(results: Results, known: Mapping[str, Method]) -> Grid | None:
    titles = _titles(results)
    rows = []
    facts = {one["method"]: one for one in results.get("methods") or []}
    for name, one in known.items():
        for suite, spent in ((facts.get(name) or {}).get("scoring") or {}).items():
            if spent:
                numbers = [_spent(spent, "seconds"), count(spent.get("answers"))]
                numbers += [_amount(spent.get(key)) for key in ("tokens_in", "tokens_out")]
                rows.append([Cell(one.label, one.backbone), Cell(titles.get(suite, plain(suite))), *map(Cell, numbers)])
    if len(titles) < 2 or not rows:
        return None
    head = [Cell("method", "backbone"), Cell("suite"), *map(Cell, ("scoring", "answers", "tokens in", "tokens out"))]
    return Grid("cost-by-suite", "Scoring by suite", "", head, [Block("", rows)], words=2, detail=True)


def suite_title(suite: Mapping[str, Any]) -> str:
    """A table's title; one of all items stands beside one of fewer."""
    return plain(suite.get("title") or suite["name"]) + (", all items" if suite.get("whole") else "")


def part_of(suite: Mapping[str, Any]) -> str:
    """Of how many items these are a part, " of 1,165"; empty where they are all."""
    n, of = number(suite.get("n")), number(suite.get("of"))
    return f" of {count(of)}" if n is not None and of is not None and n < of else ""


def _titles(results: Results) -> dict[str, str]:
    return {suite["name"]: suite_title(suite) for suite in results.get("suites") or []}


def _position(results: Results, known: Mapping[str, Method]) -> Grid | None:
    titles = _titles(results)
    facts = {one["method"]: one for one in results.get("methods") or []}
    rows = []
    for name, one in known.items():
        for suite, found in ((facts.get(name) or {}).get("position") or {}).items():
            if found:
                shares = [_share(found.get(key)) for key in ("first", "flips")]
                sizes = [Cell(count(found.get(key))) for key in ("n", "unanswered")]
                rows.append([Cell(one.label, one.backbone), Cell(titles.get(suite, plain(suite))), *shares, *sizes])
    head = [Cell("method", "backbone"), Cell("suite"), Cell("first preferred", "%"), Cell("flips", "%")]
    head += [Cell("comparisons"), Cell("unanswered")]
    return Grid("position", "Position bias", _POSITION, head, [Block("", rows)], words=2) if rows else None


def _probes(results: Results) -> Grid | None:
    probes = results.get("probes") or []
    names = list(dict.fromkeys(name for one in probes for name in one.get("pearson") or {}))
    if not names:
        return None
    head = [Cell("objective"), *(Cell(plain(one.get("backbone")), plain(one.get("feature"))) for one in probes)]
    rows = [[Cell(plain(name)), *(_correlation(*_of(one, name)) for one in probes)] for name in names]
    means = [[Cell("mean"), *(_correlation(one.get("mean")) for one in probes)]]
    if probes[1:]:
        title = f"mean, over {plain(probes[0].get('backbone'))}"
        means.append([Cell(title), *(_correlation(one.get("gain"), write=signed) for one in probes)])
    return Grid("probes", "Probes by backbone", _PROBES, head, [Block("", rows), Block("", means)])


def _of(probe: Mapping[str, Any], name: str) -> tuple[Any, float | None]:
    """One objective's correlation and number of ratings."""
    return (probe.get("pearson") or {}).get(name), number((probe.get("n") or {}).get(name))


def _correlation(raw: Any, n: float | None = None, write: Callable[[Any], str] = decimal) -> Cell:
    one = interval(raw)
    if one is None:
        return Cell()
    known = math.isfinite(one.low) and math.isfinite(one.high)
    ends = f"{write(one.low)} to {write(one.high)}" if known else ""
    return Cell(write(one.value), ", ".join(filter(None, (ends, _n(n)))))


def _not_run(known: Mapping[str, Method]) -> Grid | None:
    rows = [[Cell(one.label, one.backbone), Cell(one.skipped)] for one in known.values() if one.skipped]
    head = [Cell("method", "backbone"), Cell("why")]
    return Grid("not-run", "Not run", "", head, [Block("", rows)], words=2) if rows else None
