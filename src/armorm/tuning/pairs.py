"""The decoder trained on pairs, by TRL's trainers: to score the chosen answer higher, or to say which of two answers is better.

In: pairs, a backbone's name, settings.  Out: a folder with a one-logit model, which may serve as the backbone of stage 1, or with
a causal language model.  Cost: about three forward passes of the decoder per answer seen.

Bradley–Terry: −log σ(score(chosen) − score(rejected)). Pairwise preference (SLiC-HF): a conversation shows the prompt and both
answers, the next word says which is better. A step sees each of its pairs in both orders, so that a liking for the first place
raises the loss of one order by what it takes from the other's, and only what the answers say is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from armorm.data.rows import PreferencePair
from armorm.errors import MissingExtra
from armorm.rendering import Renderer
from armorm.rivals.pairwise import PairRenderer
from armorm.tuning.decoder import Decoder
from armorm.tuning.examples import comparison_examples, order_examples
from armorm.tuning.loop import Curve, Job


def train_bradley_terry(pairs: Sequence[PreferencePair], validation: Sequence[PreferencePair], job: Job) -> Curve:
    """Train on `pairs` and write `model/` (and `adapter/`) into the job's folder.

    Raises MissingExtra without TRL, BackboneError for a decoder that can't be trained, FitError without usable pairs.
    """
    try:
        from trl import RewardConfig, RewardTrainer
    except ImportError:
        raise MissingExtra("training a Bradley–Terry reward model", "trl", "train") from None
    decoder = Decoder(job.backbone, "logits", ("reward",), job.seed)
    renderer = Renderer(decoder.tokenizer, max_tokens=job.max_tokens)
    arguments = job.arguments(evaluate=bool(validation))
    make = partial(
        RewardTrainer,
        args=RewardConfig(**arguments, max_length=None),  # the renderer has seen to it, and drops nothing
        train_dataset=order_examples(pairs, renderer),
        eval_dataset=order_examples(validation, renderer) if validation else None,
        processing_class=decoder.tokenizer,
    )
    return job.train(decoder, make)


def train_pairwise(pairs: Sequence[PreferencePair], validation: Sequence[PreferencePair], job: Job) -> Curve:
    """Train on `pairs` and write `model/` (and `adapter/`) into the job's folder.

    Raises MissingExtra without TRL, BackboneError for a decoder without a language model's head, FitError without usable pairs.
    """
    try:
        from trl import SFTConfig, SFTTrainer
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
    except ImportError:
        raise MissingExtra("training a pairwise preference model", "trl", "train") from None
    decoder = Decoder(job.backbone, "words", seed=job.seed)
    tokenizer = decoder.tokenizer
    renderer = PairRenderer(tokenizer, max_tokens=job.max_tokens)
    arguments = job.arguments(evaluate=bool(validation))
    make = partial(
        SFTTrainer,
        args=SFTConfig(**arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=comparison_examples(pairs, renderer),
        eval_dataset=comparison_examples(validation, renderer) if validation else None,
        data_collator=BothOrders(DataCollatorForLanguageModeling(tokenizer.pad_token_id)),
        processing_class=tokenizer,
    )
    return job.train(decoder, make)


class BothOrders:
    """Pairs → a batch with two rows each, put together by `collate`."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        orders = (zip(pair["input_ids"], pair["labels"], strict=True) for pair in pairs)
        return self.collate([{"input_ids": ids, "labels": labels} for both in orders for ids, labels in both])
