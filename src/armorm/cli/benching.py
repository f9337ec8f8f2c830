"""`armorm bench`: arguments → a suite, results → tables.

In: a benchmark's name or a file; results.json's content.  Out: `Suite`; rich tables.  Cost: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from armorm.data.benchmarks.registry import benchmark, benchmarks
from armorm.data.files import expand
from armorm.errors import DataError
from armorm.jobs.explain import comparison_table
from armorm.recipe import Source, Suite


def suite_of(name: str, *, path: str | None, sections: Sequence[str], limit: int | None) -> Suite:
    """A benchmark by its name, or a file of pairs. Raises DataError for neither, and for a --section without "="."""
    if broken := [s for s in sections if "=" not in s]:
        raise DataError(f"--section {broken[0]!r}: write PATTERN=SECTION, e.g. 'hep-*=reasoning'")
    mapping = dict(s.split("=", 1) for s in sections)
    try:
        if name not in benchmarks() and _is_file(name):
            stem = Path(name).name.split(".")[0]
            return Suite(name=stem, source=Source(path=name, cap=limit), sections=mapping)
        benchmark(name)  # says which names there are
        return Suite.model_validate({"benchmark": name, "path": path, "cap": limit, "sections": mapping})
    except ValidationError as error:
        raise DataError("; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())) from None


def _is_file(name: str) -> bool:
    # Names of benchmarks have neither a dot nor a slash; what looks like a path gets the errors of a path.
    return any(c in name for c in "./*$~") and bool(expand(name))


def bench_tables(results: Mapping[str, Any]) -> list[Any]:
    """Overall and sections, the subsets, the published rows, and what was left out."""
    parts: list[Any] = [_sections(results), _subsets(results)]
    if steered := results.get("profile"):
        parts.append(comparison_table(steered["comparison"], steered["name"]))
    if results["published"]:
        parts.append(_published(results))
    return [*parts, *_remarks(results)]


def _sections(results: Mapping[str, Any]) -> Table:
    aggregates = results["figures"]["aggregates"]
    size = f"{results['items']:,} items of {results['prompts']:,} prompts"
    title = f"{results['title']}: {size}, accuracy in %, 95 % intervals by prompt"
    table = _table(title, "", *aggregates, "ties as halves", "n", "ties", "unscored")
    names = list(dict.fromkeys(n for a in aggregates.values() for n in a["sections"]))
    for name in ("overall", *names):
        cells = [a["overall"] if name == "overall" else a["sections"].get(name) for a in aggregates.values()]
        table.add_row(name, *map(_cell, cells), *_counts(next(c for c in cells if c)), end_section=name == "overall")
    return table


def _subsets(results: Mapping[str, Any]) -> Table:
    beside = [row for row in results["published"] if row["subsets"]]
    table = _table("Subsets", "subset", "accuracy", *(row["label"] for row in beside), "ties as halves", "n", "ties", "unscored")
    for name, figure in results["figures"]["subsets"].items():
        table.add_row(name, _cell(figure), *(_share(row["subsets"].get(name)) for row in beside), *_counts(figure))
    return table


def _published(results: Mapping[str, Any]) -> Table:
    rows = results["published"]
    sections = list(dict.fromkeys(s for row in rows for s in row["sections"]))
    table = _table("Published numbers, as their authors report them", "method", "base model", "overall", *sections, "source")
    for row in rows:
        cells = (_share(row["sections"].get(s)) for s in sections)
        table.add_row(row["label"], row["base_model"], _share(row["overall"]), *cells, row["source"])
    return table


def _remarks(results: Mapping[str, Any]) -> list[str]:
    within = results["length"]["within_prompt"]
    found = [] if within["value"] is None else [f"rank correlation of score and answer length within prompts: {_signed(within)}"]
    if bias := results.get("position"):
        first, flips = (f"{100 * bias[k]['value']:.1f} %" if bias[k]["value"] is not None else "–" for k in ("first", "flips"))
        found.append(
            f"position: the answer shown first wins {first} of the verdicts; the two orders disagree on {flips} of the pairs"
        )
    for name, aggregate in results["figures"]["aggregates"].items():
        if aggregate["missing"]:
            here = len(results["figures"]["subsets"])
            found.append(
                f"{name}: {here} subsets are here, {len(aggregate['missing'])} are missing: not comparable with a full run"
            )
        if aggregate["note"]:
            found.append(f"{name}: {aggregate['note']}")
    if results["left_out"]:
        found.append("left out: " + ", ".join(f"{reason} {n:,}" for reason, n in results["left_out"].items()))
    return found


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name in ("source", "base model") else "right")
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return ""
    return f"{100 * figure['value']:.1f} ({100 * figure['low']:.1f}–{100 * figure['high']:.1f})"


def _counts(figure: Mapping[str, Any]) -> tuple[str, ...]:
    halves = "" if figure["halves"] is None else f"{100 * figure['halves']:.1f}"
    return halves, f"{figure['n']:,}", str(figure["ties"]), str(figure["unscored"])


def _signed(interval: Mapping[str, Any]) -> str:
    return f"{interval['value']:+.2f} ({interval['low']:+.2f} to {interval['high']:+.2f})"
