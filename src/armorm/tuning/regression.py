"""Eq. (1) in full: min over θ and w of E ‖wᵀ f_θ(x⊕y) − r‖² over the ratings that are there, the decoder's weights trained too.

In: rated responses, objectives, a backbone's name, settings.  Out: a folder with the decoder and a k-logit head, then the
backbone of stage 1.  Cost: about three forward passes of the decoder per answer seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from jaxtyping import Float

from armorm.data.rows import RatedResponse
from armorm.objectives import Objectives
from armorm.rendering import Renderer
from armorm.tuning.decoder import Decoder
from armorm.tuning.examples import rating_examples
from armorm.tuning.loop import Curve, Job
from armorm.tuning.start import start_at_the_probe


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
