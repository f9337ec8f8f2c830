"""`armorm score`, `best-of`, `select`, `pairs`: scores of a file, and what is made of them.

In: a model's name, a file.  Out: rows on stdout or in a file; what was kept and left out on stderr.  Cost: the pipeline's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from armorm.cli.options import (
    AnswerIs,
    BatchTokens,
    CellsAre,
    ColumnsGiven,
    Exact,
    Format,
    MaxTokens,
    Model,
    ProfileFile,
    Quiet,
    row_format,
)
from armorm.cli.printing import print_letters, print_line
from armorm.errors import DataError
from armorm.limits import MOST_ROWS

if TYPE_CHECKING:
    from armorm.data.shapes import RowFormat
    from armorm.jobs.score_file import Finished, Job, Tally
    from armorm.jobs.select import Counts
    from armorm.scorers import Reading

Rows = Annotated[Path, typer.Argument(help="Conversations in any format of docs/data.md: JSON Lines, JSON, Parquet, CSV.")]
Scored = Annotated[Path, typer.Argument(help="A file that `armorm score MODEL FILE --out SCORED` wrote.")]
Out = Annotated[Path | None, typer.Option(help="Write here (.jsonl, .jsonl.gz, .parquet) [default: JSON lines on stdout].")]
Resumed = Annotated[
    Path | None,
    typer.Option(help="Write here (.jsonl, .jsonl.gz, .parquet); a stopped run goes on [default: JSON lines on stdout]."),
]


def score(
    model: Model,
    file: Rows,
    out: Resumed = None,
    full: Annotated[bool, typer.Option("--full", help="Rewards, gate, coefficients and contributions too.")] = False,
    scores_only: Annotated[bool, typer.Option("--scores-only", help="With --out: without the input's own columns.")] = False,
    profile: ProfileFile = None,
    batch_tokens: BatchTokens = 4096,
    max_tokens: MaxTokens = None,
    exact: Exact = False,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    quiet: Quiet = False,
) -> None:
    """Score a file of answers, of any length: one JSON object per row on stdout, or the rows with their scores in a file."""
    from armorm.jobs.score_file import score_job

    job = score_job(full=full, own_columns=out is not None and not scores_only)
    reading: Reading = {"batch_tokens": batch_tokens, "max_tokens": max_tokens, "exact": exact}
    _run(model, file, out, job, profile, reading, rows=row_format(columns, format_, cells), quiet=quiet)


def best_of(
    model: Model,
    file: Rows,
    top_k: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Name so many of the best answers.")] = 1,
    out: Resumed = None,
    profile: ProfileFile = None,
    batch_tokens: BatchTokens = 4096,
    max_tokens: MaxTokens = None,
    exact: Exact = False,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    quiet: Quiet = False,
) -> None:
    """Pick the best of n answers to each prompt: a row's `responses`, or neighbouring rows with the same prompt."""
    from armorm.jobs.select import best_of_job

    reading: Reading = {"batch_tokens": batch_tokens, "max_tokens": max_tokens, "exact": exact}
    rows = row_format(columns, format_, cells)
    _run(model, file, out, best_of_job(top_k=top_k), profile, reading, rows=rows, quiet=quiet)


def select(
    file: Scored,
    keep_top: Annotated[float | None, typer.Option(help="Keep this share of the answers, such as 0.2.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Keep answers that score at least this.")] = None,
    per_prompt: Annotated[bool, typer.Option("--per-prompt", help="The share is of each prompt's answers.")] = False,
    out: Out = None,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    answer: AnswerIs = "last-turn",
    quiet: Quiet = False,
) -> None:
    """Keep the best answers of a scored file, as conversations to train on."""
    from armorm.jobs.select import select as selected

    how = row_format(columns, format_, cells, answer=answer)
    rows, counts = selected(file, keep_top=keep_top, min_score=min_score, per_prompt=per_prompt, rows=how)
    _write(rows, out)
    _tell(counts, "answers kept", quiet=quiet)
    _check_scored(file, counts)


def pairs(
    file: Scored,
    margin: Annotated[float, typer.Option(help="The least difference of scores.")] = 0.0,
    every: Annotated[bool, typer.Option("--all", help="Every two answers of a prompt, not only the best and the worst.")] = False,
    out: Out = None,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    answer: AnswerIs = "last-turn",
    quiet: Quiet = False,
) -> None:
    """Build preference pairs from a scored file, in TRL's format for DPO: the best answer of a prompt against the worst."""
    from armorm.jobs.select import build_pairs

    how = row_format(columns, format_, cells, answer=answer)
    rows, counts = build_pairs(file, margin=margin, every=every, rows=how)
    _write(rows, out)
    _tell(counts, "pairs", quiet=quiet)
    if counts.scattered and not quiet:
        print(
            f"warning: {counts.scattered:,} times a prompt comes back later in the file, and answers that stand apart make no "
            "pairs: sort the file by prompt",
            file=sys.stderr,
        )
    _check_scored(file, counts)


def _check_scored(file: Path, counts: Counts) -> None:
    if not (counts.answers or counts.unscored):
        raise DataError(f"{file}: holds no row: give a file that `armorm score MODEL FILE --out SCORED` wrote")
    if not counts.answers:
        first = f"; the first: {counts.reason}" if counts.reason else ""
        raise DataError(f"{file}: not one of its {counts.unscored:,} answers has a score{first}")


def _run(
    model: str,
    file: Path,
    out: Path | None,
    job: Job,
    profile: Path | None,
    reading: Reading,
    *,
    rows: RowFormat,
    quiet: bool,
) -> None:
    from armorm.jobs.score_file import Tally, score_file, stream_file
    from armorm.progress import Reporter
    from armorm.scoring.profile import Profile

    steered, reporter = Profile.from_yaml(profile) if profile else None, Reporter(quiet=quiet)
    tally = Tally()
    if out is None:
        _write(stream_file(model, file, job, profile=steered, reporter=reporter, tally=tally, rows=rows, **reading), None)
    else:
        finished = score_file(model, file, out, job, profile=steered, reporter=reporter, rows=rows, **reading)
        tally = finished.tally
        print_line(_summary(finished))
    if not quiet:
        _tell_reading(tally, streamed=out is None)
    if not tally.rows:
        raise DataError(f"{file}: holds no row: give a file with answers in it")
    if not tally.answers:
        raise DataError(f"{file}: not one of its {tally.rows:,} rows can be scored; the first: {tally.fault}")


def _tell_reading(tally: Tally, *, streamed: bool) -> None:
    from armorm.report.reading import reading_sentences

    if streamed and tally.faulty and tally.answers:  # where there are none, the error says so; a file's line has the number
        print_line(f"{tally.faulty:,} of {tally.rows:,} rows with an error; the first: {tally.fault}", sys.stderr)
    for sentence in reading_sentences(tally.truncated, tally.answers, tally.max_tokens, tally.notes):
        print_line(sentence, sys.stderr)


def _summary(finished: Finished) -> str:
    fresh = finished.rows - finished.resumed
    faulty = f", {finished.faulty:,} with an error" if finished.faulty else ""
    before = f", {finished.resumed:,} of them before" if finished.resumed else ""
    rate = f"; {fresh / finished.seconds:,.0f} rows/s" if fresh and finished.seconds > 0 else ""
    return f"{finished.path}: {finished.rows:,} rows{faulty}{before}{rate}"


def _write(rows: Iterable[Mapping[str, Any]], out: Path | None) -> None:
    if out is not None:
        from armorm.data.row_writing import write_rows

        write_rows(rows, out)
        return
    from armorm.data.row_writing import json_text

    for row in rows:
        print_letters(lambda ascii_only, row=row: json_text(row, ascii_only=ascii_only))  # type: ignore[misc]


def _tell(counts: Counts, what: str, *, quiet: bool) -> None:
    if not quiet:
        from armorm.numbers import counts as by_name

        reasons = f" ({by_name(counts.reasons)})" if counts.reasons else ""
        unscored = f"; {counts.unscored:,} without a score left out{reasons}" if counts.unscored else ""
        said = f"{counts.out:,} {what}, of {counts.answers:,} scored answers to {counts.prompts:,} prompts{unscored}"
        print_line(said, sys.stderr)
