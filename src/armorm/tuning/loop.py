"""The training loop around a trainer of transformers or TRL: checkpoints, resumption, progress, the curve.

In: settings, a trainer.  Out: `Curve`; the trained weights in a folder.  Cost: the training; a checkpoint holds the adapters and
the optimiser's state. Several processes (`accelerate launch`) share the work; what is written is written by the first.

Checkpoints are the trainer's own, with digests beside them (`checkpoints`): safetensors, JSON, and tensors that torch reads with
`weights_only`. The finished folder holds safetensors and JSON alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from armorm.errors import ArmormError, CheckpointError, FitError
from armorm.recipe import BackboneSettings
from armorm.tuning.checkpoints import last_whole, seal
from armorm.tuning.decoder import Decoder, load_trainable, save_trained
from armorm.tuning_settings import TuningSettings

KEPT_CHECKPOINTS = 2
# The argument's name since transformers 5.20; before, it was the other.
_RECOMPUTED = next(
    n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(transformers.TrainingArguments, n)
)


@dataclass(frozen=True)
class Curve:
    """What the trainer logged, step by step, and what it took in all (over every resumption).

    `steps` rows have step, loss, learning_rate, tokens, seconds; `evaluations` have step, loss and accuracy, where there is one.
    """

    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]

    @property
    def facts(self) -> dict[str, Any]:
        """Plain JSON values."""
        last = self.steps[-1] if self.steps else {}
        return {
            "steps": int(last.get("step", 0)),
            "tokens": int(last.get("tokens", 0)),
            "seconds": round(last.get("seconds", 0.0), 1),
            "curve": self.steps,
            "evaluations": self.evaluations,
        }


OnStep = Callable[[int, int, str], None]
"""Told (steps done, steps in all, a note) after each step."""


def tell_nobody(_done: int, _total: int, _note: str) -> None:
    """For a training whose steps interest nobody."""


@dataclass(frozen=True)
class Job:
    """One training: which decoder, how, and where the result (`folder`) and the `checkpoints` go.

    A job that finds checkpoints of its own `key` (of what it trains on, and how) goes on from the last. `progress` is told of
    every step.
    """

    backbone: BackboneSettings
    settings: TuningSettings
    folder: Path
    checkpoints: Path
    seed: int = 0
    progress: OnStep = tell_nobody
    key: str = ""

    @property
    def max_tokens(self) -> int:
        """The longest input."""
        return self.settings.max_tokens or self.backbone.max_tokens

    @property
    def checkpoint(self) -> str | None:
        """The last of its checkpoints that is whole, where there is one."""
        found = last_whole(self.checkpoints, self.key)
        return None if found is None else str(found)

    def arguments(self, *, evaluate: bool) -> dict[str, Any]:
        """The trainer's arguments, by transformers' names. Raises FitError for a batch that the processes can't share."""
        cpu = self.backbone.device == "cpu" or not torch.cuda.is_available()
        world = int(transformers.TrainingArguments(output_dir=str(self.checkpoints), use_cpu=cpu).world_size)
        if self.settings.batch_size % (self.settings.micro_batch * world):
            raise FitError(
                f"batch_size {self.settings.batch_size} does not divide among {world} processes of micro_batch "
                f"{self.settings.micro_batch}: choose a multiple"
            )
        saved = {"save_strategy": "steps", "save_steps": self.settings.save_every, "save_total_limit": KEPT_CHECKPOINTS}
        evaluated = {"eval_strategy": "steps", "eval_steps": self.settings.save_every} if evaluate else {"eval_strategy": "no"}
        return {
            "output_dir": str(self.checkpoints),
            "num_train_epochs": self.settings.epochs,
            "max_steps": self.settings.steps or -1,
            "per_device_train_batch_size": self.settings.micro_batch,
            "per_device_eval_batch_size": self.settings.micro_batch,
            "gradient_accumulation_steps": self.settings.batch_size // (self.settings.micro_batch * world),
            "learning_rate": self.settings.learning_rate,
            "lr_scheduler_type": "cosine",
            "warmup_steps": self.settings.warmup,
            "weight_decay": self.settings.weight_decay,
            _RECOMPUTED: self.settings.gradient_checkpointing,
            "bf16": self.backbone.dtype != "float32",
            "use_cpu": cpu,
            "seed": self.seed,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,  # a loss that is no number shall be seen
            "include_num_input_tokens_seen": "non_padding",
            "disable_tqdm": True,
            "report_to": "none",
            "prediction_loss_only": True,
            "dataloader_pin_memory": not cpu,
            **saved,
            **evaluated,
        }

    def train(self, decoder: Decoder, make: Callable[[Any], Any]) -> Curve:
        """Train the decoder with the trainer that `make` makes of it, and save it.

        Raises FitError when the loss is no number any more, CheckpointError for a checkpoint that can't be gone on from.
        """
        model = load_trainable(decoder, self.settings.lora)
        model.config.get_text_config().pad_token_id = decoder.tokenizer.pad_token_id
        trainer = make(model)
        curve = self._run(trainer)
        save_trained(trainer, decoder, self.settings.lora, self.folder)
        return curve

    def _run(self, trainer: Any) -> Curve:
        trainer.remove_callback(transformers.PrinterCallback)
        watch, checkpoint = _Watch(self.progress, self.key), self.checkpoint
        trainer.add_callback(watch)
        with _inputs_as_they_are(trainer.model), _going_on(checkpoint, watch), suppress(_Finished):
            trainer.train(resume_from_checkpoint=checkpoint)
        return curve_of(trainer.state.log_history)


@contextmanager
def _going_on(checkpoint: str | None, watch: _Watch) -> Iterator[None]:
    # What goes wrong before the first step is the checkpoint's fault, where there is one, unless it is the memory's.
    try:
        yield
    except (ArmormError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if checkpoint is None or watch.begun:
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(
            f"{checkpoint}: the training can't go on from here ({said}): remove this folder and run it again, which goes on from "
            "an earlier checkpoint, or from the start"
        ) from error


def _inputs_as_they_are(model: Any) -> AbstractContextManager[None]:
    # Adapters bring their inputs to float32, and autocast, to which the choice is left here, brings them back: the same numbers.
    if not hasattr(model, "peft_config"):
        return nullcontext()
    from peft.helpers import disable_input_dtype_casting

    return disable_input_dtype_casting(model)


def curve_of(history: list[dict[str, Any]]) -> Curve:
    """The trainer's log as `Curve`."""
    steps = [
        {
            "step": row["step"],
            "loss": row["loss"],
            "learning_rate": row["learning_rate"],
            "tokens": row.get("num_input_tokens_seen", 0),
            "seconds": row.get("seconds", 0.0),
        }
        for row in history
        if "loss" in row
    ]
    return Curve(steps, [_evaluation(row) for row in history if "eval_loss" in row])


def _evaluation(row: Mapping[str, Any]) -> dict[str, Any]:
    named = {"eval_accuracy": "accuracy", "eval_mean_token_accuracy": "accuracy"}
    return {"step": row["step"], "loss": row["eval_loss"]} | {to: row[name] for name, to in named.items() if name in row}


class _Finished(Exception):  # noqa: N818 - no error
    """The checkpoint is of the last step: its weights and its log are what the training comes to."""


class _Watch(transformers.TrainerCallback):
    # Tells the progress, keeps the seconds over resumptions in the log, seals checkpoints, stops a run whose loss is no number.

    def __init__(self, progress: OnStep, key: str) -> None:
        self.progress, self.key, self.begun = progress, key, False
        self.before, self.start, self.tokens = 0.0, 0.0, 0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:  # the trainer would take a step more
            raise _Finished
        self.before = max((row.get("seconds", 0.0) for row in state.log_history), default=0.0)
        self.start, self.tokens = time.perf_counter(), state.num_input_tokens_seen

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        self.begun = True

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        at = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        seal(at, self.key, process=args.process_index, processes=args.world_size)

    def on_log(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        row = state.log_history[-1]
        spent = time.perf_counter() - self.start
        row["seconds"] = round(self.before + spent, 2)
        if "loss" in row:
            if not torch.isfinite(torch.tensor(row["loss"])):
                raise FitError(f"the loss is {row['loss']} at step {state.global_step}: lower tuning.learning_rate")
            rate = (state.num_input_tokens_seen - self.tokens) / max(spent, 1e-9)
            self.progress(state.global_step, state.max_steps, f"loss {row['loss']:.3f}, {rate:,.0f} tokens/s")
