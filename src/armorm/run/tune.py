"""A recipe's decoder trained for one objective: `armorm tune`, and the trained decoders of `armorm compare`.

In: a recipe, its rows.  Out: a stage's folder with `model/`, `adapter/`, the loss as JSON and as a picture.
Cost: the training. It goes on from its last checkpoint; a finished one is found by what went into it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from armorm import __version__
from armorm.data.reading import cap_rows
from armorm.data.splits import Split
from armorm.data.stored_rows import StoredRows, outlines
from armorm.disk import storage_errors, write_json, write_text
from armorm.errors import DataError, FitError, MissingExtra
from armorm.objectives import Objectives
from armorm.owner import owning
from armorm.progress import Reporter
from armorm.recipe import Recipe
from armorm.rendering import VERSION
from armorm.report.provenance import provenance
from armorm.report.tuning import TuningResults, write_curve
from armorm.run.extraction import LazyBackbone
from armorm.run.rows import Rows, read_rows, side_of
from armorm.run.stages import Stage, find_stage, key_of, read_nothing, require_stage_folder, run_stage
from armorm.tuning.loop import Curve, Job
from armorm.tuning.pairs import train_bradley_terry, train_pairwise
from armorm.tuning.regression import train_regression
from armorm.tuning_settings import TrainingObjective

FORMAT = 1


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
    processes share the work. Raises MissingExtra without the training packages, BackboneError, FitError, StorageError.
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
    require_stage_folder(folder)
    found = find_stage(folder, key, read_nothing, reporter.alarm)
    processes.wait_for_everyone()  # all have looked before the first begins
    stage = found or _trained(work, folder, key, processes)
    reporter.say(f"{objective}: {f'{stage.seconds:.1f} s' if stage.fresh else 'as before'}")
    return stage


def _trained(work: _Work, folder: Path, key: str, processes: Any) -> Stage[None]:
    # The first process makes the stage, the others take part in the training.
    checkpoints = folder.with_name(f"{folder.name}.checkpoints")
    with processes.main_process_first():
        _claim(checkpoints, key)
    if processes.is_main_process:
        with owning(folder):
            stage = run_stage(folder, work.inputs, lambda at: (None, work.train(at, checkpoints)), read_nothing)
    else:
        beside = checkpoints / f"process-{processes.process_index}"
        stage = Stage(folder, key, None, work.train(beside, checkpoints), 0.0, fresh=True)
    processes.wait_for_everyone()
    if processes.is_main_process:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return stage


class _Work:
    # What is trained on what.

    def __init__(
        self, recipe: Recipe, objective: TrainingObjective, objectives: Objectives, rows: Rows, reporter: Reporter
    ) -> None:
        self.recipe, self.objective, self.objectives, self.reporter = recipe, objective, objectives, reporter
        self.settings = recipe.tuning.of(objective)
        sources: Any = rows.ratings if objective == "regression" else rows.pairs
        self.sources: list[StoredRows[Any]] = list(sources.values())

    @property
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
            "rows": key_of({"rows": [(row.id, row.group, row.source) for found in self.sources for row in outlines(found)]}),
            "objectives": self.objectives.to_json() if self.objective == "regression" else None,
            "splits": self.recipe.splits.model_dump(),
            "seed": self.recipe.seed,
        }

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
            curve = self._fit(rows, validation, Job(*where, lambda done, _total, note: advance(done, note)))
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


def _claim(checkpoints: Path, key: str) -> None:
    # Checkpoints of other settings or rows are of no use; the first process that comes here clears them away.
    marker = checkpoints / "key"
    if checkpoints.exists() and not marker.is_file() and (not checkpoints.is_dir() or any(checkpoints.iterdir())):
        raise DataError(f"{checkpoints}: is there already and holds no checkpoints of a training: move it away")
    if marker.is_file() and marker.read_text(encoding="utf-8", errors="replace") != key:
        with storage_errors(checkpoints):
            shutil.rmtree(checkpoints)
    write_text(marker, key)
