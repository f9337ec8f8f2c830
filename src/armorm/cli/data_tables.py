"""What `armorm data` prints, as tables for people.

In: the facts as plain JSON values.  Out: rich tables and lines.  Cost: none.

Names and texts come from strangers' files: they go through `_plain`, so that rich reads no markup in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from armorm.data.benchmarks.registry import benchmarks
from armorm.data.sources.registry import pair_sources, rating_sources
from armorm.data.validate import Validation

Facts = Mapping[str, Any]
SHOWN = 60
MOST_OBJECTIVES = 4


def listed() -> dict[str, list[dict[str, Any]]]:
    """Everything that has a name, as plain values."""
    ratings = [
        _entry(s, s.place) | {"rater": s.rater, "objectives": [o.model_dump(mode="json") for o in s.objectives]}
        for s in rating_sources().values()
    ]
    pairs = [_entry(s, s.place) | {"made": s.made} for s in pair_sources().values()]
    named = [
        _entry(b, b.parts[0].place) | {"rule": b.rule.value, "subsets": dict(b.subsets), "parts": len(b.parts)}
        for b in benchmarks().values()
    ]
    return {"ratings": ratings, "pairs": pairs, "benchmarks": named}


def _entry(one: Any, place: Any) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "hub": place.hub,
        "url": place.url or getattr(one, "url", ""),
        "split": place.split,
        "subset": place.subset,
        "data_dir": place.data_dir,
        "licence": one.licence,
        "rows": one.rows,
        "confidence": one.confidence,
    }


def source_tables(facts: Mapping[str, Sequence[Facts]]) -> list[Any]:
    """Three tables."""
    about = {
        "ratings": ("Rated answers", "objectives", _objective_names),
        "pairs": ("Preference pairs", "how a pair is made", lambda one: _plain(one["made"])),
        "benchmarks": ("Benchmarks", "scoring; subsets", lambda one: f"{one['rule']}; {len(one['subsets'])}"),
    }
    tables: list[Any] = []
    for kind, (title, last, write) in about.items():
        table = _table(title)
        _columns(table, ("name", "what", "hub id or address", "split", "licence"), ("rows",))
        table.add_column(last, overflow="fold")
        for one in facts[kind]:
            rows = f"{one['rows']:,}" if one["rows"] else "?"
            place = _plain("/".join(part for part in (one["hub"] or one["url"], one["subset"], one["data_dir"]) if part))
            unsure = " *" if one["confidence"] == "remembered" else ""
            cells = (_plain(one["title"]), place, _plain(one["split"]), _plain(one["licence"]))
            table.add_row(_plain(one["name"]) + unsure, *cells, rows, write(one))
        tables.append(table)
    return [*tables, "* its files are read as remembered, and refused where they turn out otherwise"]


def _objective_names(one: Facts) -> str:
    names = [o["name"] for o in one["objectives"]]
    more = f" … {len(names)} in all" if len(names) > MOST_OBJECTIVES else ""
    return _plain(", ".join(names[:MOST_OBJECTIVES])) + more


def inspection_tables(facts: Facts) -> list[Any]:
    """Everything that `inspect` found, in tables."""
    counts = facts["counts"]
    what = "rated answers" if facts["kind"] == "ratings" else "preference pairs"
    tables: list[Any] = [
        f"[bold]{_plain(facts['name'])}[/]: {counts['rows']:,} {what} of {counts['prompts']:,} prompts, from "
        f"{counts['records']:,} records",
        *(f"[dim]{_plain(remark)}[/]" for remark in facts["remarks"]),
    ]
    if counts["faults"] or counts["skipped"] or counts["notes"]:
        tables.append(_drops("Left out, and noted", counts, counts["records"]))
        tables += [f"[dim]{_plain(line)}[/]" for line in counts["examples"]]
    if facts.get("objectives"):
        tables += [_ratings(facts["objectives"]), _patterns(facts["patterns"])]
    tables.append(_lengths(facts))
    if facts.get("longer_chosen"):
        tables.append(_longer(facts["longer_chosen"]))
    tables.append(_repeats(facts["duplicates"]))
    if facts["leakage"]:
        tables += [_leakage(facts["leakage"]), *_leaked(facts["leakage"])]
    return tables


def validation_tables(found: Iterable[Validation]) -> list[Any]:
    """A summary per source."""
    tables: list[Any] = []
    for one in found:
        facts = one.to_json()
        verdict = f"[red]{one.faulty:,} faulty[/]" if one.faulty else "[green]no faults[/]"
        what = "pairs" if one.kind == "pairs" else "rated answers"
        kept = f"{one.kept:,} {what} of {one.groups:,} prompts"
        tables.append(f"[bold]{_plain(one.where)}[/]: {verdict} in {one.total:,} records; {kept}")
        if facts["faults"] or facts["skipped"] or facts["notes"]:
            tables.append(_drops("", facts, one.total))
        tables += [f"[dim]{_plain(remark)}[/]" for remark in one.remarks]
    return tables


def export_tables(facts: Facts, remarks: Sequence[str]) -> list[Any]:
    """What was written, and what was not."""
    tables: list[Any] = [f"{_plain(facts['path'])}: {facts['rows']:,} rows from {facts['records']:,} records"]
    if facts["faults"] or facts["skipped"] or facts["notes"]:
        tables.append(_drops("Left out, and noted", facts, facts["records"]))
    return tables + [f"[dim]{_plain(remark)}[/]" for remark in remarks]


def _drops(title: str, counts: Facts, records: int) -> Table:
    table = _table(title)
    _columns(table, ("what", "kind"), ("records", "share"))
    for kind, part in (("fault", "faults"), ("left out on purpose", "skipped"), ("note", "notes")):
        for what, n in counts[part].items():
            table.add_row(_plain(what), kind, f"{n:,}", _percent(n / records))
    return table


def _ratings(objectives: Sequence[Facts]) -> Table:
    table = _table("Ratings, and how they follow the answer's length in characters; 95 % intervals by prompt")
    _columns(table, ("objective", "rated by"), ("scale", "n", "share", "mean", "Spearman", "Pearson"))
    for o in objectives:
        if o["n"]:
            scale, mean = f"{o['min']:g} to {o['max']:g}", f"{o['mean']:.2f}"
            follows = [_signed(o["length"][k]) for k in ("spearman", "pearson")]
            table.add_row(_plain(o["name"]), _plain(o["rater"]), scale, f"{o['n']:,}", _percent(o["share"]), mean, *follows)
    unrated = [o["name"] for o in objectives if not o["n"]]
    if unrated:
        table.caption = _plain(f"no row rates {', '.join(unrated)}")
    return table


def _patterns(patterns: Facts) -> Table:
    table = _table(f"Which objectives are rated together; different patterns: {patterns['different']}")
    _columns(table, ("objectives",), ("rows", "share"))
    for one in patterns["most"]:
        table.add_row(_plain(", ".join(one["objectives"])), f"{one['rows']:,}", _percent(one["share"]))
    return table


def _lengths(facts: Facts) -> Table:
    table = _table("Lengths")
    marks = ("mean", "min", "p5", "p25", "median", "p75", "p95", "max")
    _columns(table, ("of",), marks)
    named = [(f"{name}, {m}", both[m]) for name, both in facts["lengths"].items() if name != "turns" for m in both]
    named += [("questions in a conversation", facts["lengths"]["turns"]), ("rows of a prompt", facts["rows_per_prompt"])]
    for name, one in named:
        if one:
            table.add_row(name, f"{one['mean']:,.1f}", *(f"{one[key]:,.0f}" for key in marks[1:]))
    return table


def _longer(longer: Mapping[str, Facts]) -> Table:
    table = _table("The longer answer was the chosen one; 95 % interval by prompt")
    _columns(table, ("length in",), ("share", "pairs of unequal length", "of equal length"))
    for measure, one in longer.items():
        share = "" if one["value"] is None else _percent(one["value"]) + _between(one, _percent)
        table.add_row(measure, share, f"{one['n']:,}", f"{one['equal']:,}")
    return table


def _repeats(answers: Facts) -> Table:
    said = f"{answers['answers']:,} answers, {answers['distinct']:,} different, {answers['repeated']:,} there before"
    table = _table(f"Repeats: {said}")
    table.add_column("times", justify="right")
    table.add_column("answer")
    for one in answers["most"]:
        table.add_row(f"{one['times']:,}", _short(one["answer"]))
    return table


def _leakage(leakage: Sequence[Facts]) -> Table:
    table = _table("Prompts that are also in a benchmark")
    _columns(table, ("benchmark",), ("its prompts", "exact: prompts", "rows", "near: prompts", "rows", "near from"))
    for one in leakage:
        cells = [f"{one[kind][what]:,}" for kind in ("exact", "near") for what in ("prompts", "rows")]
        table.add_row(_plain(one["benchmark"]), f"{one['prompts']:,}", *cells, f"{one['threshold']:.2f}")
    return table


def _leaked(leakage: Sequence[Facts]) -> list[Table]:
    tables = []
    for one in leakage:
        if one["examples"]:
            table = _table(f"{_plain(one['benchmark'])}: the first found of either kind")
            _columns(table, ("similarity", "prompt of these rows", "prompt of the benchmark"), ())
            for e in one["examples"]:
                close = "exact" if e["exact"] else f"{e['similarity']:.2f}"
                table.add_row(close, _short(e["prompt"]), _short(e["benchmark_prompt"]))
            tables.append(table)
    return tables


def _table(title: str) -> Table:
    return Table(title=title or None, title_justify="left", title_style="bold", caption_justify="left")


def _columns(table: Table, words: Sequence[str], numbers: Sequence[str]) -> None:
    for name in words:
        table.add_column(name, overflow="fold")  # an id that is cut short can't be used
    for name in numbers:
        table.add_column(name, justify="right")


def _plain(text: str) -> str:
    return escape(str(text)).encode("utf-8", "replace").decode()


def _short(text: str) -> str:
    return _plain(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _signed(interval: Facts) -> str:
    if interval["value"] is None:
        return ""
    return f"{interval['value']:+.2f}" + _between(interval, lambda x: f"{x:+.2f}")


def _between(interval: Facts, write: Any) -> str:
    return "" if interval["low"] is None else f" [dim]{write(interval['low'])}…{write(interval['high'])}[/]"
