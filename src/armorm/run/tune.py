"""A recipe's decoder trained for one objective: `armorm tune`, and the trained decoders of `armorm compare`.

In: a recipe, its rows.  Out: a stage's folder with `model/`, `adapter/`, the loss as JSON and as a picture.
Cost: the training, and one pass over the rows' texts to know them again. It goes on from its last checkpoint; a finished one is
found by what went into it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from armorm import __version__
from armorm.data.reading import cap_rows
from armorm.data.rows import texts_of
from armorm.data.splits import Split
from armorm.data.stored_rows import StoredRows
from armorm.disk import write_json
from armorm.errors import ArmormError, DataError, FitError, MissingExtra
from armorm.objectives import Objectives
from armorm.owner import clear_left_lock, owning
from armorm.progress import Reporter
from armorm.recipe import Recipe
from armorm.rendering import VERSION
from armorm.report.provenance import provenance
from armorm.report.tuning import TuningResults, write_curve
from armorm.run.extraction import LazyBackbone
from armorm.run.rows import Rows, read_rows, side_of
from armorm.run.stages import Stage, find_stage, key_of, read_nothing, require_stage_folder, run_stage
from armorm.tuning.checkpoints import claim, clear, is_of
from armorm.tuning.loop import Curve, Job
from armorm.tuning.pairs import train_bradley_terry, train_pairwise
from armorm.tuning.regression import train_regression
from armorm.tuning_settings import TrainingObjective

FORMAT = 2
_BEGINS, _FINISHED, _REFUSED = range(3)
"""What the first of several processes says to the others."""


def tune(
    recipe: Recipe,
    objective: TrainingObjective,
    folder: Path,
    *,
    rows: Rows | None = None,
    reporter: Reporter | None = None,
) -> Stage[None]:
    """Train the recipe's decoder on the training side of its rows, and judge it on the validation side as it goes.

    The decoder lands in `folder`/model. `rows` are the recipe's, where they are read already. Under `accelerate launch` several
    processes share the work. Raises MissingExtra without the training packages, InUse where another launch trains, DataError for
    a place that holds something else, CheckpointError for a checkpoint that can't be gone on from, BackboneError, FitError,
    StorageError.
    """
    reporter = reporter or Reporter()
    try:
        from accelerate import PartialState
    except ImportError:
        raise MissingExtra("training a decoder", "accelerate", "train") from None
    processes = PartialState(cpu=recipe.backbone.device == "cpu")
    objectives = recipe.load_objectives()
    work = _Work(recipe, objective, objectives, rows or read_rows(recipe, objectives, reporter), reporter)
    key = key_of(work.inputs)
    with _begun(folder, key, processes, reporter.alarm) as found:
        stage = found or _trained(work, folder, key, processes)
    reporter.say(f"{objective}: {f'{stage.seconds:.1f} s' if stage.fresh else 'as before'}")
    return stage


@contextmanager
def _begun(folder: Path, key: str, processes: Any, damaged: Callable[[str], None]) -> Iterator[Stage[None] | None]:
    # The finished stage, or None: the first process then holds the place for the length of the block, and the checkpoints are
    # this training's. What it found goes for all processes: one that went another way would have the others wait for ever.
    found = None
    with ExitStack() as held:
        if processes.is_main_process:
            try:
                found = _find_or_claim(folder, key, held, damaged)
            except Exception:
                _told(processes, _REFUSED)
                raise
        verdict = _told(processes, _FINISHED if found else _BEGINS)
        if verdict == _REFUSED:
            raise DataError(f"{folder}: the first process of this launch can't train here, and says why: so this one ends too")
        if verdict == _FINISHED and not found and (found := find_stage(folder, key, read_nothing)) is None:
            raise DataError(
                f"{folder}: the first process of this launch finds the finished training, process {processes.process_index} does "
                "not: name a folder that all machines have in common"
            )
        yield found


def _find_or_claim(folder: Path, key: str, held: ExitStack, damaged: Callable[[str], None]) -> Stage[None] | None:
    require_stage_folder(folder)
    if (found := find_stage(folder, key, read_nothing, damaged)) is not None:
        _tidy(folder, key)
        return found
    held.enter_context(owning(folder))
    if (found := find_stage(folder, key, read_nothing)) is None:  # another process may have finished it in between
        claim(_checkpoints_of(folder), key)
    return found


def _tidy(folder: Path, key: str) -> None:
    # A process that was killed when all was done left its checkpoints, or its lock.
    if is_of(_checkpoints_of(folder), key):
        with suppress(ArmormError), owning(folder):  # somebody may be training with other settings
            clear(_checkpoints_of(folder), key)
    clear_left_lock(folder)


def _told(processes: Any, verdict: int) -> int:
    # What the first process says, in each of them.
    import torch
    from accelerate.utils import broadcast

    return int(broadcast(torch.tensor([verdict], device=processes.device))[0])


def _trained(work: _Work, folder: Path, key: str, processes: Any) -> Stage[None]:
    # The first process makes the stage, the others take part in the training.
    checkpoints = _checkpoints_of(folder)
    if processes.is_main_process:
        stage = run_stage(folder, work.inputs, lambda at: (None, work.train(at, checkpoints)), read_nothing)
    else:
        beside = checkpoints / f"process-{processes.process_index}"
        stage = Stage(folder, key, None, work.train(beside, checkpoints), 0.0, fresh=True)
    processes.wait_for_everyone()
    if processes.is_main_process:
        clear(checkpoints, key)
    return stage


def _checkpoints_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.checkpoints")


class _Work:
    # What is trained on what.

    def __init__(
        self, recipe: Recipe, objective: TrainingObjective, objectives: Objectives, rows: Rows, reporter: Reporter
    ) -> None:
        self.recipe, self.objective, self.objectives, self.reporter = recipe, objective, objectives, reporter
        self.settings = recipe.tuning.of(objective)
        sources: Any = rows.ratings if objective == "regression" else rows.pairs
        self.sources: list[StoredRows[Any]] = list(sources.values())

    @cached_property
    def inputs(self) -> dict[str, Any]:
        backbone = self.recipe.backbone
        return {
            "armorm": __version__,
            "format": FORMAT,
            "objective": self.objective,
            "settings": self.settings.model_dump(mode="json"),
            "backbone": LazyBackbone(backbone, [], self.reporter.say).fingerprint,
            "max_tokens": backbone.max_tokens,
            "rendering": VERSION,
            "rows": self._rows_key(),
            "objectives": self.objectives.to_json() if self.objective == "regression" else None,
            "splits": self.recipe.splits.model_dump(),
            "seed": self.recipe.seed,
        }

    def _rows_key(self) -> str:
        # Where the rows belong, and all that is learnt from them: texts, ratings, which answer is the chosen one.
        h = hashlib.sha256()
        for row in (row for found in self.sources for row in found):
            facts = [row.id, row.group, row.source, *texts_of(row), sorted(getattr(row, "ratings", {}).items())]
            h.update(json.dumps(facts, default=str).encode() + b"\n")
        return h.hexdigest()[:16]

    def train(self, at: Path, checkpoints: Path) -> dict[str, Any]:
        rows, validation = self._side(Split.TRAIN), self._side(Split.VALIDATION)
        if not rows:
            raise FitError(f"no row is left to train {self.objective} on: lower splits.validation and splits.test")
        cap, seed = self.settings.evaluate, self.recipe.seed
        validation = [*cap_rows(tuple(validation), cap, seed=seed, strata=lambda row: row.source)] if cap else []
        steps = self.settings.steps or -(-int(len(rows) * self.settings.epochs) // self.settings.batch_size)
        self.reporter.say(f"training {self.objective}: {len(rows):,} rows, {steps:,} steps of {self.settings.batch_size}")
        at.mkdir(parents=True, exist_ok=True)
        with self.reporter.bar(f"training {self.objective}", steps) as advance:
            where = (self.recipe.backbone, self.settings, at, checkpoints, seed)
            job = Job(*where, lambda done, _total, note: advance(done, note), key_of(self.inputs))
            curve = self._fit(rows, validation, job)
        results = TuningResults.model_validate(
            {
                "objective": self.objective,
                **provenance(),
                "rows": len(rows),
                "examples": curve.facts["steps"] * self.settings.batch_size,
                "settings": self.settings.model_dump(mode="json"),
                **curve.facts,
            }
        )
        write_json(at / "training.json", results.to_json())
        write_curve(results, at / "training.svg")
        return {key: value for key, value in results.to_json().items() if key != "curve"}

    def _fit(self, rows: list[Any], validation: list[Any], job: Job) -> Curve:
        if self.objective == "regression":
            return train_regression(rows, validation, self.objectives, job)
        train = train_pairwise if self.objective == "pairwise" else train_bradley_terry
        return train(rows, validation, job)

    def _side(self, split: Split) -> list[Any]:
        return [row for found in self.sources for row in found if side_of(row.group, self.recipe) is split]
