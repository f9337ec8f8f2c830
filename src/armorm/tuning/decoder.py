"""A decoder with a head, made ready for training; and what was trained as a plain folder.

In: a backbone's name, what it is trained for.  Out: a model to train; a folder in transformers' layout.
Cost: one load to train, one to merge the adapters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from armorm.disk import give_rights, remove_file
from armorm.errors import BackboneError, MissingExtra
from armorm.features.backbone import DType, load_headed, load_tokenizer, located
from armorm.recipe import BackboneSettings
from armorm.rendering import Renderer
from armorm.sums import write_sums
from armorm.tuning_settings import Lora
from armorm.user_files import user_path

Head = Literal["logits", "words"]
"""`logits`: a linear head on the last token, one output per name; `words`: the language model's own."""

_PICKLE = "training_args.bin"
"""What the trainer saves beside the weights: its settings, with names of this machine's folders. Nobody reads it."""


@dataclass(frozen=True)
class Decoder:
    """Which decoder, and with which head: `outputs` names the head's outputs (none for `words`)."""

    settings: BackboneSettings
    head: Head
    outputs: Sequence[str] = ()
    seed: int = 0

    def load(self, dtype: DType) -> Any:
        """The model with its head, which is random (by `seed`) where the folder holds none.

        Raises BackboneError when it can't be read, or when the language model's head is wanted and missing.
        """
        kind: Any = transformers.AutoModelForCausalLM
        options: dict[str, Any] = {"revision": self.settings.revision}
        if self.head == "logits":
            kind, names = transformers.AutoModelForSequenceClassification, dict(enumerate(self.outputs))
            options |= {"num_labels": len(names), "id2label": names, "label2id": {name: i for i, name in names.items()}}
        transformers.set_seed(self.seed)
        new = "score.weight" if self.head == "logits" else ""
        model, _ = load_headed(kind, self._folder, use="a decoder to train", dtype=dtype, new=new, **options)
        if self.head == "logits" and getattr(model, "score", None) is None:
            raise BackboneError(
                f"{type(model).__name__} keeps its head under another name than `score`: it can't be trained here"
            )
        return model

    @property
    def _folder(self) -> str:
        # The same weights that features are read from, whatever they are loaded as here.
        return located(self.settings.model, self.settings.dtype)

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, with the recipe's chat template, padding with a token that never ends an answer."""
        template = user_path(self.settings.chat_template) if self.settings.chat_template else None
        settings = self.settings
        tokenizer = load_tokenizer(settings.model, dtype=settings.dtype, revision=settings.revision, chat_template=template)
        tokenizer.pad_token = _padding(tokenizer)
        return tokenizer


def _padding(tokenizer: Any) -> str:
    # A head on the last token finds it as the last that is no padding: padding must not be what the template ends answers with.
    closing = Renderer(tokenizer, max_tokens=256).closing_ids[-1:]
    candidates = [
        tokenizer.pad_token,
        tokenizer.unk_token,
        tokenizer.bos_token,
        tokenizer.eos_token,
        *tokenizer.all_special_tokens,
    ]
    free = [t for t in candidates if t is not None and tokenizer.convert_tokens_to_ids(t) not in closing]
    if not free:
        raise BackboneError("every special token of this tokenizer may end an answer: give it a padding token of its own")
    return str(free[0])


def load_trainable(decoder: Decoder, lora: Lora | None) -> Any:
    """The model ready for training: with adapters on every linear layer and a head that is trained whole, or all of it.

    What is trained is in float32; weights that stay as they are keep the backbone's dtype.
    """
    if lora is None:
        return decoder.load("float32")
    try:
        from peft import LoraConfig, TaskType, get_peft_model
    except ImportError:
        raise MissingExtra("training with low-rank adapters", "peft", "train") from None
    logits = decoder.head == "logits"
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if logits else TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        modules_to_save=["score"] if logits else None,
    )
    base = decoder.load("float32" if decoder.settings.dtype == "float32" else "bfloat16")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's and transformers' between themselves
        model = get_peft_model(base, config)
    for weights in model.parameters():
        if weights.requires_grad:
            weights.data = weights.data.float()  # steps as small as these are lost in bfloat16
    return model


def save_trained(trainer: Any, decoder: Decoder, lora: Lora | None, folder: Path) -> None:
    """Write `model/`, a whole model in transformers' layout with its tokenizer, and `adapter/` where there is one.

    All processes take part in gathering the weights; the first writes. Adapters are added into a fresh copy of the decoder's
    weights, in the backbone's dtype.
    """
    trainer.save_model(str(folder / ("adapter" if lora else "model")))
    if not trainer.is_world_process_zero():
        return
    remove_file(folder / ("adapter" if lora else "model") / _PICKLE)
    tokenizer = decoder.tokenizer
    if lora:
        from peft import PeftModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            merged = PeftModel.from_pretrained(decoder.load("float32"), str(folder / "adapter")).merge_and_unload()
        merged.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        merged.to(getattr(torch, decoder.settings.dtype)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    give_rights(folder / "model", [file.name for file in (folder / "model").glob("*.safetensors")])
    write_sums(folder / "model")
