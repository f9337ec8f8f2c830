"""Files of answers → scores, streamed: any number of rows in the memory of one window; a run that was stopped goes on.

In: a model's name, a file, what to write for a row.  Out: rows in the file's order, on the fly or in a file.
Cost: the engine's. A window (at most 512 answers or 4 MB of text) is held, scored at once and written in the file's order; a kill
loses that window at most.

Beside OUT stands `OUT.progress.json`: how far it is, the digest of what is written, and what it depends on (the input's hash, the
model's, the settings). A file that is finished is checked against it wherever it is read as a file of scores.
Windows begin at the same rows in every run, so a run that was stopped gives the same scores as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Unpack

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter

from armorm.bounds import Count
from armorm.conversation import Conversation
from armorm.data.answer_rows import AnswerRow, answer_rows
from armorm.data.files import fingerprint, records
from armorm.data.row_writing import RowWriter, assemble_all, row_writer
from armorm.data.shapes import Columns, RowFormat
from armorm.disk import digest_of, is_there, read_sealed, reading_facts, storage_errors, write_sealed
from armorm.errors import ArmormError, DataError
from armorm.model.scorer import ModelScorer
from armorm.owner import owning
from armorm.progress import Reporter
from armorm.scorers import Reading
from armorm.scoring.engine import NOT_FINITE
from armorm.scoring.profile import Profile
from armorm.scoring.score import Score
from armorm.scoring.table import ScoreTable
from armorm.user_files import BROKEN, open_file, require_file, version_of

FORMAT = 3
ENDING = ".progress.json"
WINDOW_ANSWERS = 512
WINDOW_CHARACTERS = 4_000_000
OURS = ("score", "scores", "error", "truncated", "notes")
"""Columns of the output that replace the input's own."""

ScoreAll = Callable[[Sequence[Conversation]], ScoreTable]


@dataclass(frozen=True, eq=False)
class Answered:
    """A row's answers in the table of their window: each one's place there, None for an answer that is none."""

    row: AnswerRow
    table: ScoreTable
    places: tuple[int | None, ...]

    @property
    def scores(self) -> list[float | None]:
        """The answers' scores; None where an answer can't be scored."""
        return [None if i is None else float(self.table.scores[i]) for i in self._scored]

    @property
    def truncated(self) -> list[bool | None]:
        """Whether each answer's conversation did not fit and was cut; None where it has no score."""
        return [None if i is None else bool(self.table.truncated[i]) for i in self._scored]

    @property
    def notes(self) -> list[list[str]]:
        """What was put right in each answer's conversation, or what the chat template left out or could not keep apart."""
        read = self.row.notes
        return [[] if i is None else list(dict.fromkeys((*read, *self.table.notes[i]))) for i in self._scored]

    @property
    def faults(self) -> list[str | None]:
        """What is wrong with each answer, None where nothing is."""
        return [fault if i is None else self._fault(i) for fault, i in zip(self.row.faults, self.places, strict=True)]

    def whole(self) -> list[Score | None]:
        """The answers' scores, taken apart."""
        return [None if i is None else self.table[i] for i in self._scored]

    @property
    def _scored(self) -> list[int | None]:
        return [None if i is None or self._fault(i) is not None else i for i in self.places]

    def _fault(self, i: int) -> str | None:
        silent = None if math.isfinite(self.table.scores[i]) else NOT_FINITE
        return self.table.faults[i] or silent


@dataclass(frozen=True)
class Job:
    """What is made of a row's scores. `settings` and `name` say what the output depends on besides texts and model."""

    name: str
    write: Callable[[Answered], dict[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: Callable[[Iterable[AnswerRow]], Iterator[AnswerRow]] = iter


def score_job(*, full: bool = False, own_columns: bool = True) -> Job:
    """One output row per input row: `id`, `score` (or `scores`, where the row lists answers) and `truncated`; `notes` and `error`
    where there are any.

    `own_columns` carries the input's columns along, of which those of these names are replaced; `full` adds rewards, gate,
    coefficients and contributions.
    """

    def write(answered: Answered) -> dict[str, Any]:
        row = answered.row
        own = {k: v for k, v in row.values.items() if k not in OURS} if own_columns else {}
        return {**own, "id": row.id, **_result(answered, full), **how_read(answered), **error_of(answered)}

    return Job("score", write, {"full": full, "own_columns": own_columns})


@dataclass
class Tally:
    """What a run over a file met, filled as it goes.

    `rows` of the file; `faulty`: output rows with an `error`, of which `fault` is the first; `answers` that were scored;
    `truncated`: those that did not fit into `max_tokens` and were cut; `notes`: by name, those of which the chat template left
    something out.
    """

    max_tokens: int | None = None
    rows: Count = 0
    faulty: Count = 0
    fault: str = ""
    answers: Count = 0
    truncated: Count = 0
    notes: dict[str, Count] = field(default_factory=dict)

    def add(self, answered: Answered) -> None:
        """Count one row's answers."""
        error = error_of(answered).get("error", "")
        self.rows += answered.row.rows
        self.faulty += bool(error)
        self.fault = self.fault or error
        self.answers += sum(score is not None for score in answered.scores)
        self.truncated += sum(map(bool, answered.truncated))
        for note in (note for notes in answered.notes for note in notes):
            self.notes[note] = self.notes.get(note, 0) + 1


@dataclass(frozen=True)
class Finished:
    """What a run over a file came to, as `Tally` has it; `resumed` rows were there before."""

    path: Path
    resumed: int
    seconds: float
    tally: Tally

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return self.tally.rows

    @property
    def faulty(self) -> int:
        """Output rows with an `error`."""
        return self.tally.faulty

    @property
    def truncated(self) -> int:
        """Scored answers that did not fit and were cut."""
        return self.tally.truncated

    @property
    def notes(self) -> Mapping[str, int]:
        """By name, scored answers of which the chat template left something out."""
        return self.tally.notes


# -- with a model's name -----------------------------------------------------------------------------------------------------


def stream_file(
    model: str,
    file: Path,
    job: Job | None = None,
    *,
    profile: Profile | None = None,
    reporter: Reporter | None = None,
    tally: Tally | None = None,
    rows: RowFormat = RowFormat(),  # noqa: B008 - frozen
    **reading: Unpack[Reading],
) -> Iterator[dict[str, Any]]:
    """The job's rows (default: `score_job` without own columns), in the file's order, as they are computed; faulty ones too.

    `tally` is filled on the way; `rows` says how the file is read. Raises DataError when the file can't be read,
    CheckpointError when the model can't be loaded, RecipeError for a profile that does not fit it, BackboneError for more
    tokens than the decoder has positions.
    """
    records(file)  # says what is wrong with the file before the model is loaded
    job, tally = job or score_job(own_columns=False), tally or Tally()
    scorer = ModelScorer.load(model, profile=profile, **reading)
    tally.max_tokens = scorer.longest
    how = replace(rows, span=scorer.span)
    yield from stream_rows(file, _scoring(scorer, job), job, reporter or Reporter(), tally, rows=how)


def score_file(
    model: str,
    file: Path,
    out: Path,
    job: Job | None = None,
    *,
    profile: Profile | None = None,
    reporter: Reporter | None = None,
    rows: RowFormat = RowFormat(),  # noqa: B008 - frozen
    **reading: Unpack[Reading],
) -> Finished:
    """Write the job's rows to `out`, or go on where an earlier run of the same job on the same file and model was stopped.

    Raises what `stream_file` raises, DataError when `out` is something else's, StorageError when it can't be written.
    """
    records(file)
    row_writer(out)
    job, scorer = job or score_job(), ModelScorer.load(model, profile=profile, **reading)
    key = scorer.fingerprint_with_deviations if _is_full(job) else scorer.fingerprint
    tally, how = Tally(scorer.longest), replace(rows, span=scorer.span)
    return write_scores(file, out, _scoring(scorer, job), job, model_key=key, reporter=reporter, tally=tally, rows=how)


def _scoring(scorer: ModelScorer, job: Job) -> ScoreAll:
    engine, full = scorer.engine, _is_full(job)
    return lambda conversations: engine.score(conversations, profile=scorer.profile, deviations=full)


def _is_full(job: Job) -> bool:
    # Whole scores are written with their standard deviations.
    return bool(job.settings.get("full"))


# -- rows as they come -------------------------------------------------------------------------------------------------------


def stream_rows(
    file: Path,
    score: ScoreAll,
    job: Job,
    reporter: Reporter,
    tally: Tally | None = None,
    *,
    rows: RowFormat = RowFormat(),  # noqa: B008 - frozen
) -> Iterator[dict[str, Any]]:
    """The job's rows, in the file's order, as they are computed; `tally` counts them."""
    for window in _score_windows(file, score, job, reporter, tally or Tally(), rows):
        yield from window


def _score_windows(
    file: Path, score: ScoreAll, job: Job, reporter: Reporter, tally: Tally, how: RowFormat
) -> Iterator[list[dict[str, Any]]]:
    # The job's rows, window by window, once they are counted; rows that are counted already are passed over.
    before, start = tally.rows, time.perf_counter()
    with reporter.bar(f"{job.name} {file.name}", 0 if reporter.quiet else count_rows(file) - before) as advance:
        for window in _windows(job.group(answer_rows(records(file, how.cells), how, behind=before))):
            found = score_window(window, score)
            for answered in found:
                tally.add(answered)
            yield [job.write(answered) for answered in found]
            done, spent = tally.rows - before, time.perf_counter() - start
            advance(done, f"{done / spent:,.1f} rows/s" if spent else "")


def score_window(rows: Sequence[AnswerRow], score: ScoreAll) -> list[Answered]:
    """Some rows' answers, scored at once."""
    asked = [(i, j) for i, row in enumerate(rows) for j, fault in enumerate(row.faults) if fault is None]
    table = score([rows[i].conversation(j) for i, j in asked])
    place = {at: n for n, at in enumerate(asked)}
    return [Answered(row, table, tuple(place.get((i, j)) for j in range(len(row.answers)))) for i, row in enumerate(rows)]


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


def _result(answered: Answered, full: bool) -> dict[str, Any]:
    row = answered.row
    whole = [None if one is None else one.to_json() for one in answered.whole()] if full else []
    if not row.many:
        return (whole[0] if whole else None) or {"score": answered.scores[0] if answered.scores else None}
    return {"scores": None if row.error else answered.scores, **({"answers": whole} if full else {})}


def how_read(answered: Answered) -> dict[str, Any]:
    """Of an output row: `truncated`, and `notes` where there are any; for each answer where the row lists its answers, and null
    where there is no score."""
    row, truncated, notes = answered.row, answered.truncated, answered.notes
    if row.many:
        return {"truncated": None if row.error else truncated, **({"notes": notes} if any(notes) else {})}
    return {"truncated": next(iter(truncated), None), **({"notes": notes[0]} if any(notes) else {})}


def error_of(answered: Answered) -> dict[str, str]:
    """Of an output row: `error`, where the row or an answer of it can't be scored."""
    row = answered.row
    faults = [f"answer {j}: {fault}" if row.many else fault for j, fault in enumerate(answered.faults, start=1) if fault]
    said = row.error or "; ".join(faults)
    return {"error": said} if said else {}


# -- into a file -------------------------------------------------------------------------------------------------------------


def write_scores(
    file: Path,
    out: Path,
    score: ScoreAll,
    job: Job,
    *,
    model_key: str,
    reporter: Reporter | None = None,
    tally: Tally | None = None,
    rows: RowFormat = RowFormat(),  # noqa: B008 - frozen
) -> Finished:
    """Write the job's rows to `out`, or go on where an earlier run of the same job on the same file was stopped.

    `model_key` says what the scores depend on besides the texts. Raises DataError when `out` is something else's, if only since
    (what was scored is kept beside it), when the input can't be read or changes meanwhile; StorageError when it can't be written.
    """
    reporter = reporter or Reporter()
    if is_there(out) and out.resolve() == file.resolve():
        raise DataError(f"{out}: is the input itself; choose another file")
    writer = row_writer(out)
    records(file)  # says at once what is wrong with the file
    version = version_of(file)
    inputs = {"input": fingerprint(file), "model": model_key, "job": job.name, "settings": dict(job.settings)}
    inputs["rows"] = rows.to_json()
    start = time.perf_counter()
    with owning(out):
        progress = _begun(out, writer, inputs, tally or Tally())
        before = progress.tally.rows
        if not progress.output:
            if before:
                reporter.say(f"{out}: going on behind row {before:,}")
            for window in _score_windows(file, score, job, reporter, progress.tally, rows):
                writer.append(window)
                progress.note(writer, len(window))
            if not progress.written:  # an empty file is a file too
                writer.append([])
            _require_unchanged(file, version, str(inputs["input"]), out)
            _finish(progress, writer)
        _place(progress, writer)
    return Finished(out, before, round(time.perf_counter() - start, 2), progress.tally)


def _finish(progress: _Progress, writer: RowWriter) -> None:
    progress.note(writer, 0)
    progress.output = assemble_all(writer, progress.written)
    progress.write()


def _place(progress: _Progress, writer: RowWriter) -> None:
    # The file gets its name where nothing has it; what was written stands beside it until then.
    out = writer.path
    if out.exists() and not writer.is_assembled(progress.output):
        _check_output(out, progress)  # it had it before
    elif not (out.is_file() and digest_of(out) == progress.output):
        writer.place()
    writer.remove()


def _require_unchanged(file: Path, version: tuple[int, ...], digest: str, out: Path) -> None:
    # What was only touched holds what it held.
    if version_of(file) != version and fingerprint(file) != digest:
        raise DataError(f"{file}: was changed while it was scored: remove {out}* and score it again")


_INPUTS = {"input", "model", "job", "settings", "rows"}


@dataclass
class _Progress:
    # `written` rows, up to the writer's `state` and `digest`; `output`: the digest of the whole file, once that is made.
    path: Path
    inputs: dict[str, Any]
    tally: Tally
    written: Count = 0
    state: Annotated[int, Field(ge=0, lt=2**63)] = 0
    digest: str = ""
    output: str = ""

    def note(self, writer: RowWriter, rows: int) -> None:
        self.written += rows
        self.state, self.digest = writer.state, writer.digest
        self.write()

    def write(self) -> None:
        write_sealed(self.path, {"format": FORMAT, **{k: v for k, v in asdict(self).items() if k != "path"}})

    @classmethod
    def read(cls, path: Path, *, remedy: str) -> _Progress:
        """Raises CheckpointError for a file that is damaged, or of another format."""
        facts = read_sealed(path, FORMAT, remedy=remedy)
        del facts["format"]
        with reading_facts(path, remedy=remedy):
            found = TypeAdapter(cls).validate_json(json.dumps({**facts, "path": str(path)}), strict=True)
            if not found.inputs.keys() >= _INPUTS:
                raise KeyError(*_INPUTS - found.inputs.keys())
            return found


def how_scored(out: Path, asked: RowFormat) -> RowFormat:
    """How the rows of a file that a `score` job wrote are read: as they were when they were scored, where that is known.

    Raises DataError for anything asked for that was read in another way then, and for the file of any job that is not whole or
    not as it was written. The rows of another job are read as asked.
    """
    path = _progress_file(out)
    if not path.is_file():
        return asked
    progress = _Progress.read(path, remedy="remove it, and say how the rows are read")
    if not progress.output:
        raise DataError(f"{out}: is not whole, its scoring was stopped: run it again, and it goes on from there")
    require_file(out)
    _check_output(out, progress)
    if progress.inputs["job"] != "score":
        return asked
    with reading_facts(path, remedy="remove it, and say how the rows are read"):
        known = progress.inputs["rows"]
        then = RowFormat(Columns.model_validate(known["columns"]), known["cells"], known["answer"])
    wanted, had = _flat(asked), _flat(then)
    if other := {name: value for name, value in wanted.items() if had.get(name) != value}:
        now = ", ".join(f"{name}={value}" for name, value in other.items())
        before = ", ".join(f"{name}={had.get(name, 'not set')}" for name in other)
        raise DataError(f"{out}: its scores are of rows read with {before}, not {now}: read it as it was scored ({path.name})")
    return then


def _flat(how: RowFormat) -> dict[str, Any]:
    # What is not as it is by default. Cells of a scored file are decoded already: what was `auto` are texts there.
    cells = {"cells": how.cells} if how.cells == "messages" else {}
    answer = {} if how.span == RowFormat().span else {"answer": how.span}
    return {**how.to_json()["columns"], **cells, **answer}


def _progress_file(out: Path) -> Path:
    return out.with_name(f"{out.name}{ENDING}")


def _begun(out: Path, writer: RowWriter, inputs: dict[str, Any], tally: Tally) -> _Progress:
    path = _progress_file(out)
    if not path.is_file():
        writer.begin()
        progress = _Progress(path, inputs, tally)
        progress.note(writer, 0)
        return progress
    known = _Progress.read(path, remedy=f"remove {out.name}* and begin anew")
    if other := [name for name in inputs if known.inputs.get(name) != inputs[name]]:
        raise DataError(f"{out} was begun with another {' and '.join(other)}: remove {out}* or choose another file")
    if not known.output:
        if out.exists():
            raise DataError(f"{out} is there already, and {path.name} says that it is not finished: move it away")
        writer.resume(known.state, known.digest)
    elif not out.exists() and not writer.is_assembled(known.output):
        raise DataError(f"{out} was finished and is not there any more: remove {path.name} and begin anew")
    return known


def output_faults(progress: Path) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) with a score file and the `OUT.progress.json` beside it, given the latter's path."""
    out = progress.with_name(progress.name.removesuffix(ENDING))
    try:
        known = _Progress.read(progress, remedy=f"remove {out.name}* and begin anew")
        if not known.output:
            yield out.name, "is not finished: run the same command again, and it goes on from there"
        elif not out.is_file():
            yield out.name, "is missing"
        else:
            _check_output(out, known)
    except ArmormError as error:
        place, _, fault = str(error).partition(": ")
        yield Path(place).name, fault


def _check_output(out: Path, progress: _Progress) -> None:
    with storage_errors(out):
        found = digest_of(out)
    if found != progress.output:
        raise DataError(
            f"{out}: is not as it was written (damaged, or changed since): remove {out}* and score again; where the change is "
            f"meant, remove {progress.path.name}"
        )


def count_rows(file: Path) -> int:
    """How many rows a file holds, for the estimate of the time left: lines, where only reading it all would tell."""
    if file.suffix.lower() == ".parquet":
        try:
            return int(pq.read_metadata(file).num_rows)
        except (pa.ArrowException, OSError):  # as below
            return 1
    with open_file(file, unzip=True) as stream:
        try:
            lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
        except (OSError, *BROKEN):  # a damaged file is found out row by row
            return 1
    return max(1, lines)
