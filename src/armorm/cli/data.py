"""`armorm data`: the public sources, and what a set of rows holds before anything is trained on it.

In: a public set's name or a user's files.  Out: tables or JSON on stdout, progress on stderr; a page, a Parquet file.
Cost: one pass over the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from armorm.cli.options import AnswerIs, CellsAre, ColumnsGiven, Format, Json, Missing, Quiet, row_format
from armorm.cli.printing import print_json, print_line, print_report, print_result
from armorm.errors import DataError
from armorm.limits import MOST_ROWS

if TYPE_CHECKING:
    from armorm.data.files import Found
    from armorm.data.leakage import PromptIndex
    from armorm.data.opening import Opened, Request
    from armorm.data.shapes import RowFormat

data_app = typer.Typer(no_args_is_help=True, help="Rows: the public sources, what a file holds, what is wrong with it, export.")


class Kind(StrEnum):
    """Rated answers or preference pairs; `auto` looks at the first row."""

    AUTO = "auto"
    RATINGS = "ratings"
    PAIRS = "pairs"


Source = Annotated[str, typer.Argument(help="A public set's name (`armorm data sources`), or a file or pattern of your own.")]
Local = Annotated[str | None, typer.Option("--path", help="A local copy of the public set's files; nothing is fetched then.")]
As = Annotated[Kind, typer.Option("--as", help="What the rows are.")]
Split = Annotated[str | None, typer.Option(help="Another split of the public set than the usual one.")]
Limit = Annotated[int | None, typer.Option(help="Read only the first N records.")]
Facts = Annotated[
    Path | None,
    typer.Option(
        "--objectives", help="The objectives' facts (JSON) [default: objectives.json beside the file, else its numeric columns]."
    ),
]
EVERY_SECONDS = 20.0
EVERY_RECORDS = 256


@data_app.command()
def sources(json_: Json = False) -> None:
    """List the public sources of ratings and pairs, and the benchmarks."""
    from armorm.report.data_report import list_sources, sources_report

    print_json(list_sources()) if json_ else print_report(sources_report())


@data_app.command()
def inspect(
    source: Source,
    path: Local = None,
    as_: As = Kind.AUTO,
    split: Split = None,
    limit: Limit = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Count prompts shared with a benchmark: its name, NAME=PATH, or a file of pairs.")
    ] = None,
    near: Annotated[
        float | None, typer.Option(help="The similarity from which prompts are near-duplicates [default: 0.6].")
    ] = None,
    objectives: Facts = None,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    answer: AnswerIs = "last-turn",
    missing: Missing = None,
    out: Annotated[Path | None, typer.Option(help="A folder for inspect.json and the page inspect.html.")] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what rows hold: counts, ratings, missing labels, lengths, repeats, and prompts shared with benchmarks."""
    from armorm.data.inspect import inspect as inspect_rows
    from armorm.data.leakage import check_threshold
    from armorm.report.data_report import inspection_report, write_inspection

    rows = row_format(columns, format_, cells, answer=answer, missing=missing)
    request = _request(source, path, as_, split=split, limit=limit, objectives=objectives, rows=rows)
    if near is not None:
        check_threshold(near)
    indexes = [_index(one, near) for one in against or []]
    with _opened(request, quiet=quiet) as opened:
        facts = inspect_rows(opened, indexes)
    page = ""
    if out is not None:
        page = f"page: {write_inspection(facts, out)}"
    print_result(facts, lambda: inspection_report(facts), json_=json_, then=page)


@data_app.command()
def validate(
    files: Annotated[
        list[str], typer.Argument(help="Files or quoted patterns, each checked as one source; or a public set's name.")
    ],
    path: Local = None,
    objectives: Facts = None,
    as_: As = Kind.AUTO,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    answer: AnswerIs = "last-turn",
    missing: Missing = None,
    show: Annotated[int, typer.Option(min=0, max=MOST_ROWS, help="How many faults to print; --json has all.")] = 50,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check rows one by one, your own or a public set's, and say what to mend; exit code 2 when there are faults."""
    from armorm.data.validate import validate as validate_rows
    from armorm.report.data_report import validation_report

    if path is not None and len(files) > 1:
        raise DataError("`path` is a local copy of one public set: name that set alone")
    lines, rows = _Lines(json_=json_, show=show), row_format(columns, format_, cells, answer=answer, missing=missing)
    found = []
    for file in files:
        request = _request(file, path, as_, objectives=objectives, rows=rows)
        with _opened(request, quiet=quiet, on_fault_line=lines) as opened:
            found.append(validate_rows(opened))
    if json_:
        print_json({"sources": [v.to_json() for v in found], "faults": lines.kept})
    else:
        if lines.total > show:
            print(f"… and {lines.total - show:,} more")
        print_report(validation_report(found))
    if empty := [v.where for v in found if not v.total]:
        raise DataError(f"{', '.join(empty)}: holds no row: there is nothing to check")
    if lines.total:
        raise typer.Exit(2)


@data_app.command()
def export(
    source: Source,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    path: Local = None,
    as_: As = Kind.AUTO,
    split: Split = None,
    limit: Limit = None,
    objectives: Facts = None,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    answer: AnswerIs = "last-turn",
    missing: Missing = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a source's rows to one Parquet file, in the columns that a recipe reads without being told."""
    from armorm.data.export import export as export_rows
    from armorm.report.data_report import export_report

    rows = row_format(columns, format_, cells, answer=answer, missing=missing)
    request = _request(source, path, as_, split=split, limit=limit, objectives=objectives, rows=rows)
    with _opened(request, quiet=quiet) as opened:
        exported = export_rows(opened, out)
    print_result(exported, lambda: export_report(exported, opened.remarks), json_=json_)


@dataclass
class _Lines:
    """Faults as they are met: printed up to `show`, or kept for JSON."""

    json_: bool
    show: int
    total: int = 0
    kept: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.total += 1
        if self.json_:
            self.kept.append(line)
        elif self.total <= self.show:
            print_line(line)


def _request(
    source: str,
    path: str | None,
    as_: Kind,
    *,
    split: str | None = None,
    limit: int | None = None,
    objectives: Path | None = None,
    rows: RowFormat,
) -> Request:
    from armorm.data.opening import Request

    kind = {Kind.RATINGS: "ratings", Kind.PAIRS: "pairs"}.get(as_)
    return Request(source, path, kind, split, limit, objectives, rows)  # type: ignore[arg-type]


@contextmanager
def _opened(request: Request, *, quiet: bool, on_fault_line: Callable[[str], None] | None = None) -> Iterator[Opened]:
    """The source, and a line on stderr that says how far reading it has come."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from armorm.data.opening import open_source
    from armorm.progress import Terminal

    console = Terminal(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"reading {Path(request.source).name}", total=None)

        last = time.monotonic()

        def told(done: int) -> None:
            nonlocal last
            progress.update(task, completed=done)
            if progress.disable and not quiet and time.monotonic() - last >= EVERY_SECONDS:
                last = time.monotonic()
                console.print(f"reading {request.source}: {done:,} records", highlight=False, markup=False)

        opened = open_source(request, on_fault_line=on_fault_line, watch=lambda found: _counted(found, told))
        progress.update(task, total=opened.published or None)
        yield opened


def _counted(found: Iterable[Found], tell: Callable[[int], None]) -> Iterator[Found]:
    for n, one in enumerate(found, start=1):
        yield one
        if n % EVERY_RECORDS == 0:
            tell(n)


def _index(asked: str, near: float | None) -> PromptIndex:
    """The prompts of a benchmark: NAME, NAME=PATH, or a file of pairs."""
    from itertools import chain

    from armorm.data.benchmarks.registry import benchmark, benchmark_items, benchmarks
    from armorm.data.files import expand, records
    from armorm.data.leakage import THRESHOLD, PromptIndex
    from armorm.data.reading import stream_items

    name, _, path = asked.partition("=")
    if name in benchmarks() or path or not any(mark in asked for mark in "./*?["):
        items = benchmark_items(benchmark(name), path=path or None)
    else:
        name = Path(asked).name.partition(".")[0]
        items = stream_items(chain.from_iterable(map(records, expand(asked))), source=name, where=asked)
    index = PromptIndex.of(name, items, threshold=THRESHOLD if near is None else near)
    if not len(index):
        first = "".join(items.faults.examples[:1])
        raise DataError(f"{asked}: none of its {items.total} records is a benchmark's item; {first or 'it is empty'}")
    return index
