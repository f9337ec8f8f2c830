"""The Bradley–Terry reward model, decoder and all: −log σ(score(chosen) − score(rejected)), by TRL's RewardTrainer.

In: pairs, a backbone's name, settings.  Out: a folder with a one-logit model, which may serve as the backbone of stage 1.
Cost: about three forward passes of the decoder per answer seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from armorm.conversation import Renderer
from armorm.data.rows import PreferencePair
from armorm.errors import MissingExtra
from armorm.recipe import BackboneSettings, TuningSettings
from armorm.tuning.decoder import Decoder, adapted, save_trained
from armorm.tuning.examples import order_examples
from armorm.tuning.loop import Curve, OnStep, arguments, fit, unheard


def train_bradley_terry(
    pairs: Sequence[PreferencePair],
    validation: Sequence[PreferencePair],
    backbone: BackboneSettings,
    settings: TuningSettings,
    folder: Path,
    checkpoints: Path,
    *,
    seed: int = 0,
    progress: OnStep = unheard,
) -> Curve:
    """Train on `pairs` and write `model/` (and `adapter/`) into `folder`; goes on from `checkpoints` where there are any.

    Raises MissingExtra without TRL, BackboneError for a decoder that can't be trained, FitError without usable pairs.
    """
    try:
        from trl import RewardConfig, RewardTrainer
    except ImportError:
        raise MissingExtra("training a Bradley–Terry reward model", "trl", "train") from None
    decoder = Decoder(backbone, "logits", ("reward",), seed)
    tokenizer = decoder.tokenizer
    renderer = Renderer(tokenizer, max_tokens=settings.max_tokens or backbone.max_tokens)
    trainer = RewardTrainer(
        model=adapted(decoder, settings.lora),
        args=RewardConfig(
            **arguments(settings, backbone, checkpoints, seed=seed, evaluate=bool(validation)),
            max_length=None,  # the renderer has seen to it, and drops nothing
        ),
        train_dataset=order_examples(pairs, renderer),
        eval_dataset=order_examples(validation, renderer) if validation else None,
        processing_class=tokenizer,
    )
    curve = fit(trainer, checkpoints, progress)
    save_trained(trainer, decoder, settings.lora, folder)
    return curve
