"""Files of answers → scores, streamed: any number of rows in the memory of one window; a run that was stopped goes on.

In: a file, a scoring function, what to write for a row.  Out: rows in the file's order, on the fly or in a file.
Cost: the decoder's pass. A window (at most 512 answers or 4 MB of text) is held, ordered by prompt and length for the decoder,
and written in the file's order; a kill loses that window at most.

Beside OUT stands `OUT.progress.json`: how far it is and what it depends on (the input's hash, the model's, the settings).
Windows begin at the same rows in every run, so a run that was stopped gives the same scores as one that was not.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from armorm.conversation import Conversation
from armorm.data.answer_rows import AnswerRow, answer_rows
from armorm.data.files import fingerprint, records
from armorm.data.row_writing import RowWriter, remove_unfinished, row_writer
from armorm.errors import ConversationError, DataError, StorageError
from armorm.progress import Reporter
from armorm.scoring.score import Score

FORMAT = 1
WINDOW_ANSWERS = 512
WINDOW_CHARACTERS = 4_000_000
CHUNK = 256
"""Conversations that are given to the model at once."""

ScoreAll = Callable[[Sequence[Conversation]], Sequence[Score]]
Answered = list[Score | None]
"""One entry per answer of a row; None where the answer can't be scored."""


@dataclass(frozen=True)
class Job:
    """What is made of a row's scores. `settings` and `name` say what the output depends on besides texts and model."""

    name: str
    write: Callable[[AnswerRow, Answered], dict[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: Callable[[Iterable[AnswerRow]], Iterator[AnswerRow]] = iter


def score_job(*, full: bool = False, own_columns: bool = True) -> Job:
    """One output row per input row: `id`, `score` (or `scores`, where the row lists answers), `error` where there is one.

    `own_columns` carries the input's columns along, of which `score`, `scores` and `error` are replaced; `full` adds rewards,
    gate, coefficients and contributions.
    """

    def write(row: AnswerRow, scores: Answered) -> dict[str, Any]:
        own = {k: v for k, v in row.values.items() if k not in ("score", "scores", "error")} if own_columns else {}
        return {**own, "id": row.id, **_result(row, scores, full), **_error(row)}

    return Job("score", write, {"full": full, "own_columns": own_columns})


@dataclass(frozen=True)
class Finished:
    """What a run over a file came to; `resumed` rows were there before."""

    path: Path
    rows: int
    faulty: int
    resumed: int
    seconds: float


# -- rows as they come -------------------------------------------------------------------------------------------------------


def scored(rows: Iterable[AnswerRow], score: ScoreAll) -> Iterator[list[tuple[AnswerRow, Answered]]]:
    """Rows with their scores, window by window, in order."""
    for window in _windows(rows):
        yield list(zip(window, score_window(window, score), strict=True))


def stream_file(file: Path, score: ScoreAll, job: Job, reporter: Reporter) -> Iterator[dict[str, Any]]:
    """The job's rows, in the file's order, as they are computed."""
    rows = job.group(answer_rows(records(file)))
    with reporter.bar(f"{job.name} {file.name}", 0 if reporter.quiet else count_rows(file)) as advance:
        rate = _Rate(advance)
        for window in scored(rows, score):
            yield from (job.write(row, scores) for row, scores in window)
            rate.tell(sum(row.rows for row, _ in window))


def score_window(rows: Sequence[AnswerRow], score: ScoreAll) -> list[Answered]:
    """Scores of some rows' answers. Answers to one prompt are given to the model together, which computes the prompt once."""
    found: list[Answered] = [[None] * len(row.answers) for row in rows]
    by_context: dict[tuple[tuple[str, str], ...], list[tuple[int, int]]] = {}
    for i, row in enumerate(rows):
        places = [(i, j) for j, fault in enumerate(row.faults) if fault is None]
        if places:
            by_context.setdefault(tuple((m["role"], m["content"]) for m in row.context), []).extend(places)

    def size(places: list[tuple[int, int]]) -> tuple[int, tuple[int, int]]:
        return max(rows[i].characters for i, _ in places), places[0]

    for chunk in _chunks(sorted(by_context.values(), key=size)):
        scores = _scores([rows[i].conversation(j) for i, j in chunk], score)
        for (i, j), one in zip(chunk, scores, strict=True):
            found[i][j] = one
    return found


def _chunks(groups: Iterable[list[tuple[int, int]]]) -> Iterator[list[tuple[int, int]]]:
    chunk: list[tuple[int, int]] = []
    for group in groups:
        if chunk and len(chunk) + len(group) > CHUNK:
            yield chunk
            chunk = []
        chunk = chunk + group
    if chunk:
        yield chunk


def _scores(conversations: list[Conversation], score: ScoreAll) -> Sequence[Score | None]:
    try:
        return score(conversations)
    except ConversationError:  # a chat template may refuse what is a conversation otherwise
        return [None] if len(conversations) == 1 else [_scores([one], score)[0] for one in conversations]


def _windows(rows: Iterable[AnswerRow]) -> Iterator[list[AnswerRow]]:
    window, answers, characters = list[AnswerRow](), 0, 0
    for row in rows:
        window.append(row)
        answers += max(1, len(row.answers))
        characters += row.characters
        if answers >= WINDOW_ANSWERS or characters >= WINDOW_CHARACTERS:
            yield window
            window, answers, characters = [], 0, 0
    if window:
        yield window


def _result(row: AnswerRow, scores: Answered, full: bool) -> dict[str, Any]:
    if not row.many:
        one = scores[0] if scores else None
        return {"score": None} if one is None else one.to_json() if full else {"score": one.score}
    values = None if row.error else [None if s is None else s.score for s in scores]
    return {"scores": values, **({"answers": [None if s is None else s.to_json() for s in scores]} if full else {})}


def _error(row: AnswerRow) -> dict[str, str]:
    faults = [f"answer {j}: {fault}" for j, fault in enumerate(row.faults, start=1) if fault is not None]
    if row.error is None and not faults:
        return {}
    return {"error": row.error or "; ".join(faults)}


# -- into a file -------------------------------------------------------------------------------------------------------------


def score_file(file: Path, out: Path, score: ScoreAll, job: Job, *, model_key: str, reporter: Reporter | None = None) -> Finished:
    """Write the job's rows to `out`, or go on where an earlier run of the same job on the same file and model was stopped.

    Raises DataError when `out` is something else's, or when the input can't be read; StorageError when it can't be written.
    """
    reporter = reporter or Reporter()
    if out.exists() and out.resolve() == file.resolve():
        raise DataError(f"{out}: is the input itself; choose another --out")
    writer = row_writer(out)
    found = records(file)  # says at once what is wrong with the file
    inputs = {"input": fingerprint(file), "model": model_key, "job": job.name, "settings": dict(job.settings)}
    progress = _begun(out, writer, inputs)
    start, before = time.perf_counter(), progress.rows
    in_place = progress.complete and out.exists()
    if not progress.complete:
        if before:
            reporter.say(f"{out}: going on behind row {before:,}")
        _score_rest(islice(found, before, None), score, job, writer, progress, reporter, file)
        progress.complete = True
        progress.write()
    if not in_place:
        writer.finish()
    remove_unfinished(out)
    return Finished(out, progress.rows, progress.faulty, before, round(time.perf_counter() - start, 2))


def _score_rest(
    rest: Iterator[Any], score: ScoreAll, job: Job, writer: RowWriter, progress: _Progress, reporter: Reporter, file: Path
) -> None:
    with reporter.bar(f"{job.name} {file.name}", 0 if reporter.quiet else count_rows(file) - progress.rows) as advance:
        rate = _Rate(advance)
        for window in scored(job.group(answer_rows(rest)), score):
            rows = [job.write(row, scores) for row, scores in window]
            writer.append(rows)
            progress.rows += sum(row.rows for row, _ in window)
            progress.written += len(rows)
            progress.faulty += sum(bool(row.get("error")) for row in rows)
            progress.state = writer.state
            progress.write()
            rate.tell(sum(row.rows for row, _ in window))
        if not progress.written:  # an empty file is a file too
            writer.append([])
            progress.state = writer.state


@dataclass
class _Progress:
    path: Path
    inputs: dict[str, Any]
    rows: int = 0
    written: int = 0
    faulty: int = 0
    state: int = 0
    complete: bool = False

    def write(self) -> None:
        facts = {"format": FORMAT, **{k: v for k, v in asdict(self).items() if k != "path"}}
        part = self.path.with_name(f".{self.path.name}.part")
        try:
            part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            part.replace(self.path)
        except OSError as error:
            raise StorageError(f"{self.path}: can't be written: {error.strerror}; choose another --out") from error


def _begun(out: Path, writer: RowWriter, inputs: dict[str, Any]) -> _Progress:
    path = out.with_name(f"{out.name}.progress.json")
    if not path.is_file():
        if out.exists():
            raise DataError(f"{out} is there already, and no {path.name} says what it holds: remove it or choose another --out")
        writer.resume(0)
        return _Progress(path, inputs)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        known = _Progress(path, facts["inputs"], *(facts[k] for k in ("rows", "written", "faulty", "state", "complete")))
        same = facts["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: can't be read: remove {out}* and begin anew") from error
    if not same or known.inputs != inputs:
        other = [name for name in inputs if known.inputs.get(name) != inputs[name]] or ["format"]
        raise DataError(f"{out} was begun with another {' and '.join(other)}: remove {out}* or choose another --out")
    if not (known.complete and out.exists()):
        writer.resume(known.state)
    return known


def count_rows(file: Path) -> int:
    """How many rows a file holds, for the estimate of the time left: lines, where only reading it all would tell."""
    if file.suffix == ".parquet":
        return int(pq.read_metadata(file).num_rows)
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
        try:
            lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
        except (OSError, EOFError):  # a damaged file is found out row by row
            return 1
    return max(1, lines)


class _Rate:
    def __init__(self, advance: Callable[[int, str], None]) -> None:
        self.advance, self.done = advance, 0
        self.start = time.perf_counter()

    def tell(self, rows: int) -> None:
        self.done += rows
        spent = time.perf_counter() - self.start
        self.advance(self.done, f"{self.done / spent:,.1f} rows/s" if spent else "")
