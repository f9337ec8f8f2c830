"""Generated parts of the documentation: `make docs` (`python -m tests.docs`) rewrites them, tests/test_docs.py compares.

In: the command line's help, the code's tables of faults.  Out: the text between `<!-- NAME -->` and `<!-- /NAME -->`.
Cost: none.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
TORTURE = ROOT / "docs" / "results" / "torture.json"


def help_text() -> str:
    """`armorm --help` as an 80-column terminal without colours shows it."""
    from armorm.cli.app import app

    plain = {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1", "TERM": "dumb"}
    shown = CliRunner().invoke(app, ["--help"], prog_name="armorm", env=plain).stdout
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.splitlines()]
    return "```text\n" + "\n".join(lines).strip("\n") + "\n```"


def faults_table() -> str:
    """The names of faulty rows with their remedies, from the code."""
    from armorm.conversation import Fault
    from armorm.data.files import REMEDIES

    rows = [f"| `{name}` | {remedy} |" for name, remedy in {**REMEDIES, **Fault.REMEDIES}.items()]
    return "\n".join(["| fault | what to do |", "|---|---|", *rows])


READERS = {
    "ratings": "`train`, `data`: ratings",
    "pairs": "`train`, `data`: pairs",
    "items": "`bench`",
    "answers": "`score`, `best-of`, `explain`, `audit`",
}
"""What rows are read as, and the commands that do so."""


def formats_table() -> str:
    """Every format with what it needs, and what its examples are read as: each reader is run on them."""
    from armorm.data.shapes import SHAPES

    rows = []
    for shape in SHAPES:
        told = [_read_as(dict(example)) for example in shape.examples]
        cells = " | ".join("yes" if any(reader in one for one in told) else "–" for reader in READERS)
        rows.append(f"| `{shape.name}` | {shape.needs} | {cells} |")
    return "\n".join([f"| format | columns | {' | '.join(READERS.values())} |", f"|---|---|{'---|' * len(READERS)}", *rows])


def formats_examples() -> str:
    """The formats' examples, one row a line."""
    from armorm.data.shapes import SHAPES

    lines = [json.dumps(example, ensure_ascii=False) for shape in SHAPES for example in shape.examples]
    return "\n".join(["```json", *lines, "```"])


def _read_as(row: dict[str, Any]) -> set[str]:
    # The names of the readers that take the row, once it is rated.
    from armorm.data.answer_rows import answer_row
    from armorm.data.files import Record
    from armorm.data.reading import stream_items, stream_pairs, stream_ratings
    from armorm.objectives import Objective, Objectives

    quality = Objectives([Objective(name="quality", min=0, max=4)])
    record = Record(1, {**row, "quality": 3})
    streams = {
        "ratings": stream_ratings([record], source="docs", objectives=quality, where="docs"),
        "pairs": stream_pairs([record], source="docs", where="docs"),
        "items": stream_items([record], source="docs", where="docs"),
    }
    scored = set() if answer_row(record).error else {"answers"}
    return {name for name, stream in streams.items() if list(stream)} | scored


def rating_sources_table() -> str:
    """The rating sources with what a reader needs to choose among them."""
    from armorm.data.sources.registry import rating_sources

    rows = [
        f"| `{s.name}` | {s.title} | {_where(s.place)} | {_rows(s.rows)} | {s.licence} | {s.rater} "
        f"| {', '.join(o.name for o in s.objectives)} |"
        for s in rating_sources().values()
    ]
    head = "| name | set | where, split | records | licence | rater | objectives |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def pair_sources_table() -> str:
    """The pair sources, with how a pair is made."""
    from armorm.data.sources.registry import pair_sources

    rows = [
        f"| `{s.name}` | {s.title} | {_where(s.place)} | {_rows(s.rows)} | {s.licence} | {s.made} |"
        for s in pair_sources().values()
    ]
    return "\n".join(["| name | set | where, split | records | licence | a pair |", "|---|---|---|---|---|---|", *rows])


def benchmarks_table() -> str:
    """The benchmarks, with their rule."""
    from armorm.data.benchmarks.registry import benchmarks

    rows = [
        f"| `{b.name}` | {b.title} | {'; '.join(dict.fromkeys(_where(p.place) for p in b.parts))} | {_rows(b.rows)} "
        f"| {len(b.subsets)} | {b.licence} | {b.rule.value} |"
        for b in benchmarks().values()
    ]
    return "\n".join(
        ["| name | benchmark | where, split | items | subsets | licence | rule |", "|---|---|---|---|---|---|---|", *rows]
    )


def torture_table() -> str:
    """The table of the last long run of the attacks, with where it was made; a sentence where none is kept."""
    if not TORTURE.is_file():
        return "No run is kept here: the command above makes one."
    facts = json.loads(TORTURE.read_text(encoding="utf-8"))
    outcomes = import_module(f"{__package__}.torture.outcomes" if __package__ else "torture.outcomes")
    where = f"{facts['minutes']:g} minutes, seed {facts['seed']}, {facts['machine']}, Python {facts['python']}, "
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    return f"{outcomes.markdown_table(facts['attacks'])}\n\n{where}{libraries}, commit {facts['commit']}."


def bench_table() -> str:
    """The figures of the benchmarks that are kept."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return import_module("measuring").results_table()
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def _rows(published: int) -> str:
    return f"{published:,}" if published else "not known"


def _where(place: Any) -> str:
    where = f"`{place.hub}`" if place.hub else f"[{place.url.removeprefix('https://')}]({place.url})"
    return f"{where}, {place.split}"


PARTS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "help": ("README.md", help_text),
    "formats": ("docs/data.md", formats_table),
    "examples": ("docs/data.md", formats_examples),
    "faults": ("docs/data.md", faults_table),
    "rating-sources": ("docs/sources.md", rating_sources_table),
    "pair-sources": ("docs/sources.md", pair_sources_table),
    "benchmarks": ("docs/benchmarks.md", benchmarks_table),
    "torture": ("docs/reliability.md", torture_table),
    "bench": ("docs/performance.md", bench_table),
}


@dataclass(frozen=True)
class Code:
    """A block of code in a page: the page, its line there, its language, its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{Path(self.page).stem}:{self.line}"


def code_in(page: str) -> list[Code]:
    """The blocks of code of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Code(page, text.count("\n", 0, found.start()) + 1, found[1], found[2]) for found in fences]


def block(name: str) -> re.Pattern[str]:
    """Matches a generated part with its markers; group 1 is the part."""
    return re.compile(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", re.DOTALL)


def main() -> None:
    for name, (file, make) in PARTS.items():
        path = ROOT / file
        text = path.read_text(encoding="utf-8")
        made = make()
        path.write_text(block(name).sub(lambda _, n=name, m=made: f"<!-- {n} -->\n{m}\n<!-- /{n} -->", text), encoding="utf-8")


if __name__ == "__main__":
    main()
