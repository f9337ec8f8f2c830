"""The pairwise preference model (SLiC-HF): a conversation shows the prompt and both answers, the next word says which is better.

In: pairs, a backbone's name, settings.  Out: a folder with a causal language model.  Cost: about three forward passes of the
decoder per pair seen, over both answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from armorm.data.rows import PreferencePair
from armorm.errors import MissingExtra
from armorm.rivals.pairwise import PairRenderer
from armorm.tuning.decoder import Decoder, adapted, save_trained
from armorm.tuning.examples import comparison_examples
from armorm.tuning.loop import Curve, Job


def train_pairwise(
    pairs: Sequence[PreferencePair],
    validation: Sequence[PreferencePair],
    job: Job,
) -> Curve:
    """Train on `pairs` and write `model/` (and `adapter/`) into the job's folder.

    Raises MissingExtra without TRL, BackboneError for a decoder without a language model's head, FitError without usable pairs.
    """
    try:
        from trl import SFTConfig, SFTTrainer
    except ImportError:
        raise MissingExtra("training a pairwise preference model", "trl", "train") from None
    decoder = Decoder(job.backbone, "words", seed=job.seed)
    tokenizer = decoder.tokenizer
    renderer = PairRenderer(tokenizer, max_tokens=job.max_tokens)
    trainer = SFTTrainer(
        model=adapted(decoder, job.settings.lora),
        args=SFTConfig(
            **job.arguments(evaluate=bool(validation)),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=comparison_examples(pairs, renderer),
        eval_dataset=comparison_examples(validation, renderer) if validation else None,
        processing_class=tokenizer,
    )
    curve = job.run(trainer)
    save_trained(trainer, decoder, job.settings.lora, job.folder)
    return curve
