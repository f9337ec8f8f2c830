"""A judge that runs on this machine: a chat model's replies, the likeliest token at each step.

In: prompts.  Out: `LocalModel`, a `Completer`.  Cost: one pass over each batch of prompts, then one step per token of its longest
reply; memory for `batch_tokens` keys and values.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import transformers

from armorm.errors import BackboneError
from armorm.features.backbone import DType, device_of, fingerprint, load_headed, longest_of
from armorm.features.forward import pad_left
from armorm.features.packing import cut_by_length
from armorm.rendering import bos_of, encode
from armorm.rivals.judge.completing import Arrived, Completion, Prompt

TOO_LONG = "longer than the model's context"


@dataclass
class LocalModel:
    """A causal language model with a chat template, by name: "smollm2" (embedded), a .gguf file, a folder, a hub id.

    It is loaded when it is first asked. A prompt that leaves no room for a reply of `max_tokens` in the model's context is given
    up rather than cut: a judge that saw half an answer would be worth nothing. `batch_tokens` bounds a batch's prompts and
    replies together; batches are made by length and padded on the left. Nothing in a prompt's text becomes a special token.
    `fingerprint` is a hash of weights, config, tokenizer, dtype and `max_tokens`. Raises BackboneError when it isn't there.
    """

    name: str
    dtype: DType = "bfloat16"
    device: str = "auto"
    max_tokens: int = 1024
    batch_tokens: int = 8192
    failures: Counter[str] = field(default_factory=Counter)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        facts = (fingerprint(self.name, dtype=self.dtype), self.max_tokens)
        self.fingerprint = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def complete(self, prompts: Sequence[Prompt], *, arrived: Arrived = lambda _replies: None) -> list[Completion | None]:
        """Replies in the order of the prompts, None for one that is too long; `arrived` is told of each batch as a whole.

        Without the prompts of the first batches the rest makes the same ones as before. Raises BackboneError for a model that
        can't be loaded, lacks its head or has no chat template.
        """
        replies: list[Completion | None] = [None] * len(prompts)
        ids = [self._ids(prompt) for prompt in prompts]
        room = longest_of(self._loaded[0].config, None) - self.max_tokens
        for i, row in enumerate(ids):
            if len(row) > room:
                self.failures[TOO_LONG] += 1
                arrived({i: None})
        fitting = [i for i, row in enumerate(ids) if len(row) <= room]
        lengths = [len(ids[i]) + self.max_tokens for i in fitting]
        for places in cut_by_length(lengths, budget=self.batch_tokens):
            batch = [fitting[place] for place in places]
            found = dict(zip(batch, self._generate([ids[i] for i in batch]), strict=True))
            for i, reply in found.items():
                replies[i] = reply
            arrived(found)
        return replies

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        model, tokenizer = load_headed(transformers.AutoModelForCausalLM, self.name, use="a judge", dtype=self.dtype)
        if not getattr(tokenizer, "chat_template", None):
            raise BackboneError(
                f"{self.name}: the tokenizer has no chat template; a judge has to be a chat model: name an instruct version"
            )
        return model.eval().requires_grad_(False).to(device_of(self.device)), tokenizer

    def _ids(self, prompt: Prompt) -> tuple[int, ...]:
        # The template around each text, then the text without special tokens: an answer can't close its turn.
        tokenizer = self._loaded[1]
        names = [f"Vt{i}ArmormTurn" for i in range(len(prompt))]
        turns = [{"role": m["role"], "content": name} for m, name in zip(prompt, names, strict=True)]
        try:
            rest = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise what they like
            raise BackboneError(f"{self.name}: the chat template refuses a prompt of one user turn: {error}") from error
        ids: tuple[int, ...] = ()
        for name, message in zip(names, prompt, strict=True):
            before, found, rest = rest.partition(name)
            if not found:
                raise BackboneError(f"{self.name}: the chat template drops turns; a judge needs one that shows them all")
            ids += encode(tokenizer, before) + encode(tokenizer, message["content"], special=False)
        ids += encode(tokenizer, rest)
        bos = bos_of(tokenizer)
        return ids if ids[: len(bos)] == bos else bos + ids

    @torch.inference_mode()
    def _generate(self, rows: Sequence[tuple[int, ...]]) -> list[Completion]:
        model, tokenizer = self._loaded
        ends = _ends(model, tokenizer)
        ids, mask = pad_left(rows, model.device, padding=ends[0])
        how = transformers.GenerationConfig(
            max_new_tokens=self.max_tokens, do_sample=False, eos_token_id=ends, pad_token_id=ends[0]
        )
        out = model.generate(ids, attention_mask=mask, generation_config=how)
        return [self._completion(len(row), new, ends) for row, new in zip(rows, out[:, ids.shape[1] :].tolist(), strict=True)]

    def _completion(self, read: int, new: list[int], ends: list[int]) -> Completion:
        length = next((i for i, token in enumerate(new) if token in ends), None)
        written = new if length is None else new[:length]
        text = self._loaded[1].decode(written, skip_special_tokens=True)
        return Completion(text, read, len(written) + (length is not None), cut=length is None)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    # The tokens that close a reply, as the model's files and its tokenizer name them.
    found: list[int] = []
    for named in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        found += [named] if isinstance(named, int) else list(named or ())
    return list(dict.fromkeys(found)) or [0]
