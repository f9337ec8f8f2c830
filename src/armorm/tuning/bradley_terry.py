"""The Bradley–Terry reward model, decoder and all: −log σ(score(chosen) − score(rejected)), by TRL's RewardTrainer.

In: pairs, a backbone's name, settings.  Out: a folder with a one-logit model, which may serve as the backbone of stage 1.
Cost: about three forward passes of the decoder per answer seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from armorm.data.rows import PreferencePair
from armorm.errors import MissingExtra
from armorm.rendering import Renderer
from armorm.tuning.decoder import Decoder
from armorm.tuning.examples import order_examples
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
