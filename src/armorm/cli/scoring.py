"""Files of answers → scores: rows on stdout as they come, or a file that a stopped run goes on with.

In: a model's name, a file.  Out: rows of JSON, in the file's order.  Cost: the decoder's pass; a window of rows in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from armorm.data.files import records
from armorm.data.row_writing import row_writer
from armorm.jobs.score_file import Finished, Job, ScoreAll, score_file, score_job, stream_file
from armorm.model.scorer import ModelScorer
from armorm.progress import Reporter
from armorm.scoring.profile import Profile


def scored_rows(
    model: str,
    file: Path,
    *,
    full: bool = False,
    job: Job | None = None,
    profile: Profile | None = None,
    batch_tokens: int = 4096,
    quiet: bool,
) -> Iterator[dict[str, Any]]:
    """One row of JSON per record (or what `job` makes of them): its id (or row number) and score; faulty rows have `error`."""
    records(file)  # says what is wrong with the file before the model is loaded
    job = job or score_job(full=full, own_columns=False)
    scorer = _loaded(model, job, profile, batch_tokens)
    yield from stream_file(file, _scoring(scorer), job, Reporter(quiet=quiet))


def scored_to_file(
    model: str, file: Path, out: Path, *, job: Job, profile: Profile | None = None, batch_tokens: int = 4096, quiet: bool
) -> Finished:
    """The same into a file; see `score_file`."""
    records(file)
    row_writer(out)
    scorer = _loaded(model, job, profile, batch_tokens)
    return score_file(file, out, _scoring(scorer), job, model_key=scorer.fingerprint, reporter=Reporter(quiet=quiet))


def _loaded(model: str, job: Job, profile: Profile | None, batch_tokens: int) -> ModelScorer:
    full = bool(job.settings.get("full"))  # only whole scores are written with their standard deviations
    return ModelScorer.load(model, batch_tokens=batch_tokens, profile=profile, deviations=full)


def _scoring(scorer: ModelScorer) -> ScoreAll:
    return lambda conversations: scorer.model.score(conversations, batch_tokens=scorer.batch_tokens, profile=scorer.profile)


def summary(finished: Finished, what: str = "rows") -> str:
    """What happened, in a line."""
    fresh = finished.rows - finished.resumed
    faulty = f", {finished.faulty:,} with an error" if finished.faulty else ""
    before = f", {finished.resumed:,} of them before" if finished.resumed else ""
    rate = f"; {fresh / finished.seconds:,.0f} rows/s" if fresh and finished.seconds > 0 else ""
    return f"{finished.path}: {finished.rows:,} {what}{faulty}{before}{rate}"
