"""The pairwise preference model (SLiC-HF): a conversation shows the prompt and both answers, the next word says which is better.

In: pairs, a backbone's name, settings.  Out: a folder with a causal language model.  Cost: about six forward passes of the
decoder per pair seen, over both answers at once.

A step sees each of its pairs in both orders, so that a liking for the first place raises the loss of one order by what it takes
from the other's, and only what the answers say is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from armorm.data.rows import PreferencePair
from armorm.errors import MissingExtra
from armorm.rivals.pairwise import PairRenderer
from armorm.tuning.decoder import Decoder
from armorm.tuning.examples import comparison_examples
from armorm.tuning.loop import Curve, Job


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
