"""Eq. (1) in full: min over θ and w of E ‖wᵀ f_θ(x⊕y) − r‖² over the ratings that are there, the decoder's weights trained too.

In: rated responses, objectives, a backbone's name, settings.  Out: a folder with the decoder and a k-logit head, then the
backbone of stage 1.  Cost: about three forward passes of the decoder per answer seen; one over a sample of them, and a ridge
fit, before that.

The head starts as the ridge probe: with a random w the first steps go into undoing it, through the decoder's weights too (Kumar
et al. 2022, arXiv 2202.10054: probe first, then fine-tune).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float

from armorm.data.rows import RatedResponse
from armorm.data.splits import folds_of
from armorm.errors import FitError
from armorm.features.forward import last_states, pad_right, run_decoder
from armorm.features.packing import cut_by_length
from armorm.features.spec import FINAL
from armorm.fit.probe import fit_probe
from armorm.fit.statistics import RidgeStatistics
from armorm.objectives import Objectives
from armorm.rendering import Renderer
from armorm.tuning.decoder import Decoder
from armorm.tuning.examples import rating_examples
from armorm.tuning.loop import Curve, Job

ROWS = 1024
FOLDS = 5
ALPHAS = [10.0**e for e in range(-2, 9)]
BATCH_TOKENS = 4096


def train_regression(
    rows: Sequence[RatedResponse], validation: Sequence[RatedResponse], objectives: Objectives, job: Job
) -> Curve:
    """Train on `rows` and write `model/` (and `adapter/`) into the job's folder. The head starts as the ridge probe.

    Raises BackboneError for a decoder that can't be trained, FitError without usable rows.
    """
    decoder = Decoder(job.backbone, "logits", objectives.names, job.seed)
    tokenizer = decoder.tokenizer
    renderer = Renderer(tokenizer, max_tokens=job.max_tokens)
    examples = rating_examples(rows, objectives, renderer)

    def make(model: Any) -> RatingTrainer:
        if not job.checkpoint:
            start_at_the_probe(model, examples, objectives, seed=job.seed)
        return RatingTrainer(
            model=model,
            args=transformers.TrainingArguments(**job.arguments(evaluate=bool(validation)), label_names=["labels"]),
            train_dataset=examples,
            eval_dataset=rating_examples(validation, objectives, renderer) if validation else None,
            data_collator=RatingCollator(tokenizer.pad_token_id),
            processing_class=tokenizer,
        )

    return job.train(decoder, make)


def start_at_the_probe(model: Any, dataset: Any, objectives: Objectives, *, seed: int) -> None:
    """Set the head's weights by eq. (1) with θ fixed, on at most `ROWS` of the examples (columns `input_ids`, `labels`, `group`).

    An objective that this sample can't fit starts at 0. Adapters must not have been trained yet.
    """
    order = np.random.default_rng(seed).permutation(len(dataset))[:ROWS]
    rows = [dataset[int(i)] for i in order]
    states = read_last_states(model, [row["input_ids"] for row in rows])
    ratings = np.array([[np.nan if x is None else x for x in row["labels"]] for row in rows], dtype=np.float64)
    fold = np.array([folds_of(row["group"], seed=seed, folds=FOLDS) for row in rows])
    folds = [RidgeStatistics.from_rows(states[fold == i], ratings[fold == i]) for i in range(FOLDS) if (fold == i).any()]
    try:
        weights = fit_probe(folds, objectives, alphas=ALPHAS).probe.weights
    except FitError:  # hardly any ratings: nothing to start from
        weights = np.zeros((len(objectives), states.shape[1]))
    head = head_of(model)
    head.data = torch.tensor(weights, dtype=head.dtype, device=head.device)


def head_of(model: Any) -> torch.nn.Parameter:
    """The weights of the head that is trained, [k d]."""
    (found,) = [p for name, p in model.named_parameters() if p.requires_grad and "score." in name]
    return found


@torch.inference_mode()
def read_last_states(model: Any, ids: Sequence[Sequence[int]]) -> Float[np.ndarray, "n d"]:
    """The state of each row's last token behind the final norm, in float32."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    training, decoder = model.training, whole.base_model
    model.eval()
    found: dict[int, np.ndarray] = {}
    for batch in cut_by_length(list(map(len, ids)), budget=BATCH_TOKENS):
        rows = [ids[i] for i in batch]
        padded = pad_right(rows, model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype != torch.float32):
            states = run_decoder(decoder, {FINAL}, input_ids=padded, use_cache=False)[FINAL]
        found |= dict(zip(batch, last_states(states, rows).float().cpu().numpy(), strict=True))
    model.train(training)
    return np.stack([found[i] for i in range(len(ids))])


def masked_squared_error(
    predictions: Float[torch.Tensor, "n k"], ratings: Float[torch.Tensor, "n k"], count: torch.Tensor | None = None
) -> Float[torch.Tensor, ""]:
    """Eq. (1)'s loss: the squared error summed over the ratings that are there (not NaN), by their `count`.

    `count` is the number of ratings in the whole batch of which this is a part; by default that of this part. A missing rating
    has no part in the value and none in the gradient.
    """
    there = ~torch.isnan(ratings)
    gaps = torch.where(there, predictions.float() - torch.nan_to_num(ratings.float()), 0)
    return (gaps**2).sum() / (there.sum() if count is None else count).clamp(min=1)


class RatingCollator:
    """Examples → a padded batch: `input_ids`, `attention_mask` [n t], `labels` [n k] with NaN where no rating is."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [torch.tensor(e["input_ids"]) for e in examples]
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(rows, batch_first=True, padding_value=self.pad_token_id),
            "attention_mask": pad([torch.ones_like(r) for r in rows], batch_first=True),
            "labels": torch.tensor([[float("nan") if x is None else x for x in e["labels"]] for e in examples]),
        }


class RatingTrainer(transformers.Trainer):
    """Minimises `masked_squared_error` of the logits; a step's mean is over all its ratings, however it is split."""

    loss_is_scaled_for_ga = True  # by the count of the whole step, below

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of one micro-batch, divided by the ratings of the whole step."""
        ratings = inputs.pop("labels")
        outputs = model(**inputs, use_cache=False)
        loss = masked_squared_error(outputs.logits, ratings, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        # The trainer's own count is of labels that are not −100; here the ones that are no NaN count.
        count = torch.stack([(~torch.isnan(b["labels"])).sum() for b in batch_samples]).sum().to(device)
        return self.accelerator.gather(count).sum() if self.args.average_tokens_across_devices else count
