"""Rows, and the sets that have a name, as tables and sentences; what `data.inspect` found as one self-contained HTML page.

In: an `Inspection`, validations, exports, the registries.  Out: `Report`s; `inspect.json`, `inspect.html` in a folder.
Cost: none for tables; a second or two for the page, which needs the extra `report`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from armorm.data.benchmarks.registry import benchmarks
from armorm.data.export import Exported
from armorm.data.inspection import Distribution, Inspection, Leak, RatedObjective
from armorm.data.reading import FaultCounts
from armorm.data.sources.registry import pair_sources, rating_sources
from armorm.data.validate import Validation
from armorm.disk import write_json, write_text
from armorm.numbers import count, decimal, ends, general, hundredths, percent, shorten, signed_hundredths
from armorm.report.html import render_html
from armorm.report.plots import Figure, Histogram, Panel, dot_plot, heat_map, histograms
from armorm.report.tables import Grid, Report, Row, estimate, has_value, share_of, table
from armorm.sums import listing

SHOWN = 60
MOST_OBJECTIVES = 4
QUANTILES = ("min", "p5", "p25", "median", "p75", "p95", "max")

_STRONG = 0.3
_MARKED = 0.05
_NAMED = 6
_KINDS = {"ratings": "rated answers", "pairs": "preference pairs"}


def list_sources() -> dict[str, list[dict[str, Any]]]:
    """Every set that has a name, as plain values."""
    return {
        "ratings": [
            _named(s, s.place) | {"rater": s.rater, "objectives": [o.model_dump(mode="json") for o in s.objectives]}
            for s in rating_sources().values()
        ],
        "pairs": [_named(s, s.place) | {"made": s.made} for s in pair_sources().values()],
        "benchmarks": [
            _named(b, b.parts[0].place) | {"rule": b.rule.value, "subsets": dict(b.subsets), "parts": len(b.parts)}
            for b in benchmarks().values()
        ],
    }


def _named(one: Any, place: Any) -> dict[str, Any]:
    where = {key: getattr(place, key) for key in ("hub", "split", "subset", "data_dir")}
    about = {key: getattr(one, key) for key in ("licence", "rows", "confidence")}
    return {"name": one.name, "title": one.title, "url": place.url or getattr(one, "url", ""), **where, **about}


def sources_report() -> Report:
    """The rating sources, the pair sources, the benchmarks."""
    ratings = {s.name: _objective_names([o.name for o in s.objectives]) for s in rating_sources().values()}
    made = {s.name: s.made for s in pair_sources().values()}
    rules = {b.name: f"{b.rule.value}; {len(b.subsets)}" for b in benchmarks().values()}
    about = {"ratings": ratings, "pairs": made, "benchmarks": rules}
    grids = [table(f"data.{kind}-sources", [_source(s, about[kind]) for s in listed]) for kind, listed in list_sources().items()]
    return Report("", grids=grids, notes=["*: its files are read as remembered, and refused where they turn out otherwise"])


def _source(one: Mapping[str, Any], about: Mapping[str, str]) -> Row:
    return (
        one["name"] + (" *" if one["confidence"] == "remembered" else ""),
        one["title"],
        "/".join(part for part in (one["hub"] or one["url"], one["subset"], one["data_dir"]) if part),
        one["split"],
        one["licence"],
        count(one["rows"]) if one["rows"] else "?",
        about[one["name"]],
    )


def _objective_names(names: Sequence[str]) -> str:
    more = f" … {len(names)} in all" if len(names) > MOST_OBJECTIVES else ""
    return ", ".join(names[:MOST_OBJECTIVES]) + more


# -- what rows hold ----------------------------------------------------------------------------------------------------------


def inspection_report(facts: Inspection) -> Report:
    """Everything that was found in a set of rows."""
    counts = facts.counts
    head = (
        f"{facts.name}: {count(counts.rows)} {_KINDS[facts.kind]} of {count(counts.prompts)} prompts, from "
        f"{count(counts.records)} records"
    )
    grids = _drops(FaultCounts(counts.faults, counts.notes, counts.examples, counts.skipped), counts.records)
    if facts.objectives:
        grids.append(_ratings(facts.objectives))
    if facts.patterns is not None:
        rows = [[", ".join(one.objectives), count(one.rows), percent(one.share)] for one in facts.patterns.most]
        grids.append(table("data.patterns", rows, different=facts.patterns.different))
    grids.append(_lengths(facts))
    if facts.longer_chosen is not None:
        longer: list[Row] = [
            [name, share_of(one.interval), count(one.n), count(one.equal)] for name, one in facts.longer_chosen.items()
        ]
        grids.append(table("data.longer", longer))
    grids.append(_repeats(facts))
    if facts.leakage:
        grids += [_leakage(facts.leakage), *(_leaked(one) for one in facts.leakage if one.examples)]
    return Report(facts.name, sentences=[head, *facts.remarks], grids=grids, notes=counts.examples)


def validation_report(found: Sequence[Validation]) -> Report:
    """A line for each source, and what was left out of it."""
    sentences, grids = [], []
    for one in found:
        verdict = f"{count(one.faulty)} faulty" if one.faulty else "no faults"
        kept = f"{count(one.kept)} {_KINDS[one.kind]} of {count(one.groups)} prompts"
        sentences.append(f"{one.where}: {verdict} in {count(one.total)} records; {kept}")
        grids += _drops(one.faults, one.total, what=f"{one.name}: left out, and noted")
        sentences += one.remarks
    return Report("", sentences=sentences, grids=grids)


def export_report(exported: Exported, remarks: Sequence[str]) -> Report:
    """What was written, and what was not."""
    head = f"{exported.path}: {count(exported.rows)} rows from {count(exported.total)} records"
    return Report("", sentences=[head, *remarks], grids=_drops(exported.faults, exported.total))


def findings(facts: Inspection) -> Iterator[str]:
    """What to mind before these rows are used, in sentences made of the numbers alone."""
    counts, answers = facts.counts, facts.duplicates
    faulty, skipped = sum(counts.faults.values()), sum(counts.skipped.values())
    if faulty + skipped:
        yield (
            f"{count(counts.rows)} of {count(counts.records)} records became rows: {count(faulty)} are faulty, "
            f"{count(skipped)} are left out on purpose."
        )
    for leak in facts.leakage:
        parts = [
            f"{count(part.prompts)} prompt{'s' if part.prompts > 1 else ''} {how} ({count(part.rows)} rows)"
            for how, part in (("exactly", leak.exact), ("nearly", leak.near))
            if part.prompts
        ]
        if parts:
            yield f"{leak.benchmark} shares {' and '.join(parts)} with these rows."
    rhos = {o.name: o.length.spearman.value for o in facts.objectives if abs(o.length.spearman.value) >= _STRONG}
    strong = sorted(rhos, key=lambda name: -abs(rhos[name]))
    if strong:
        listed = ", ".join(f"{name} {signed_hundredths(rhos[name])}" for name in strong[:_NAMED])
        more = f" and {len(strong) - _NAMED} more" if len(strong) > _NAMED else ""
        yield f"Ratings that follow the answer's length (Spearman, {_STRONG:g} or more either way): {listed}{more}."
    longer = facts.longer_chosen and facts.longer_chosen["characters"].interval
    if longer and has_value(longer):
        between = f" (95 % interval {ends(longer, percent)})" if ends(longer) else ""
        yield f"The longer answer was chosen in {percent(longer.value)} of pairs of unequal length{between}."
    if answers.repeated > _MARKED * answers.answers:
        yield f"{percent(answers.repeated / answers.answers)} of answers were there before, letter by letter."


def _drops(faults: FaultCounts, records: int, *, what: str = "Left out, and noted") -> list[Grid]:
    """The table of what was left out and noted; none without any."""
    parts = {"fault": faults.counts, "left out on purpose": faults.skipped, "note": faults.notes}
    rows = [[reason, kind, count(n), percent(n / records)] for kind, part in parts.items() for reason, n in part.items()]
    return [table("data.drops", rows, what=what)] if rows else []


def _ratings(objectives: Sequence[RatedObjective]) -> Grid:
    rows: list[Row] = [
        [
            o.name,
            o.rater or "–",
            f"{general(o.min)} to {general(o.max)}",
            count(o.n),
            percent(o.share),
            decimal(o.mean, 2),
            *(estimate(one, signed_hundredths) for one in (o.length.spearman, o.length.pearson)),
        ]
        for o in objectives
        if o.n
    ]
    unrated = [o.name for o in objectives if not o.n]
    remarks = [f"No row rates {', '.join(unrated)}."] if unrated else []
    return table("data.ratings", rows, remarks=remarks)


def _lengths(facts: Inspection) -> Grid:
    parts: list[tuple[str, Distribution | None]] = []
    for name, one in facts.lengths.sides().items():
        parts += [(f"{name}, words", one.words), (f"{name}, characters", one.characters)]
    parts += [("questions in a conversation", facts.lengths.turns), ("rows of a prompt", facts.rows_per_prompt)]
    rows = [[name, decimal(one.mean, 1), *(count(getattr(one, key)) for key in QUANTILES)] for name, one in parts if one]
    return table("data.lengths", rows)


def _repeats(facts: Inspection) -> Grid:
    answers = facts.duplicates
    said = f"{count(answers.answers)} answers, {count(answers.distinct)} different, {count(answers.repeated)} there before"
    prompts, per = "", facts.rows_per_prompt
    if per is not None:
        known = count(facts.counts.prompts)
        prompts = f" {known} prompts, {count(per.one)} of them with one row only, at most {count(per.max)} rows to one."
    rows = [[count(one.times), shorten(one.answer, SHOWN)] for one in answers.most]
    return table("data.repeats", rows, answers=said, prompts=prompts)


def _leakage(leakage: Sequence[Leak]) -> Grid:
    rows = [
        [
            one.benchmark,
            *map(count, (one.prompts, one.exact.prompts, one.exact.rows, one.near.prompts, one.near.rows)),
            hundredths(one.threshold),
        ]
        for one in leakage
    ]
    return table("data.leakage", rows)


def _leaked(leak: Leak) -> Grid:
    rows = [
        ["exact" if e.exact else hundredths(e.similarity), shorten(e.prompt, SHOWN), shorten(e.benchmark_prompt, SHOWN)]
        for e in leak.examples
    ]
    return table("data.leaked", rows, name=leak.benchmark)


# -- the page -------------------------------------------------------------------------------------------------------------------


def write_inspection(facts: Inspection, folder: Path) -> Path:
    """Write both files into `folder` (made if absent), the facts first, and return the page's path.

    Raises `MissingExtra` without jinja2 or matplotlib, `StorageError` where a file can't be written.
    """
    with listing(folder, ("inspect.json", "inspect.html")):
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
        "data_page.html.jinja",
        facts=facts,
        report=report,
        contents=[(name, title) for name, title in sections.items() if title],
        findings=list(findings(facts)),
        head=_glance(facts),
        ratings=_rating_bars(rated),
        labels=_label_map(rated, facts),
        lengths=_length_bars(facts),
        correlations=correlations,
        leaked=[grid for grid in report.grids if grid.name.startswith("leaked ")],
    )


def _glance(facts: Inspection) -> list[tuple[str, str]]:
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


def _rating_bars(rated: Sequence[RatedObjective]) -> Figure | None:
    panels = [
        Histogram(
            o.name,
            f"mean {decimal(o.mean, 2)}, n {count(o.n)}",
            o.histogram,
            o.min,
            o.max,
            o.mean,
        )
        for o in rated
        if math.isfinite(o.max - o.min)
    ]
    return histograms(panels, alt="Ratings by objective") if panels else None


def _label_map(rated: Sequence[RatedObjective], facts: Inspection) -> Figure | None:
    listed = facts.patterns.most if facts.patterns else ()
    if not rated or not listed:
        return None
    rows = facts.counts.rows
    columns = ["all rows", *(f"{i}: {percent(one.share)}" for i, one in enumerate(listed, 1))]
    shades = [[o.n / rows, *(0.5 * (o.name in one.objectives) for one in listed)] for o in rated]
    texts = [[percent(o.n / rows), *("yes" if o.name in one.objectives else "" for one in listed)] for o in rated]
    return heat_map([o.name for o in rated], columns, shades, texts, alt="Labels by objective and pattern", most=1.0)


def _length_bars(facts: Inspection) -> Figure | None:
    panels = []
    for measure in ("words", "characters"):
        for name, both in facts.lengths.sides().items():
            if (one := getattr(both, measure)) is not None:
                edges = one.histogram.edges
                panels.append(
                    Histogram(
                        f"{name}: {measure}",
                        f"median {count(one.median)}, longest {count(one.max)}",
                        one.histogram,
                        edges[0],
                        edges[-1],
                        max(one.median, edges[0]),
                        logarithmic=edges[0] >= 1,
                    )
                )
    return histograms(panels, alt="Lengths of prompts and answers") if panels else None


def _correlations(rated: Sequence[RatedObjective]) -> Figure | None:
    panels = [
        Panel(title, [getattr(o.length, key) for o in rated], 0.0, (-1.02, 1.02), (-0.1, 0.1))
        for key, title in (("spearman", "Spearman ρ"), ("pearson", "Pearson r"))
    ]
    return dot_plot([o.name for o in rated], panels, alt="Correlation of each objective with the answer's length")
