"""A Bradley–Terry reward model as others publish it: a decoder with a one-logit head (`…ForSequenceClassification`).

In: a folder or hub id.  Out: `SequenceHead`, a Scorer on the same rendered tokens as this package's own models.
Cost: one forward pass of the decoder per distinct conversation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float

from armorm.conversation import Conversation
from armorm.disk import hash_files
from armorm.errors import BackboneError, ConversationError
from armorm.features.backbone import DType, architecture_of, device_of, load_headed, longest_of
from armorm.features.forward import last_states, pad_right, run_decoder
from armorm.features.packing import pack
from armorm.features.spec import FINAL
from armorm.rendering import VERSION, Rendered, Renderer
from armorm.scorers import Scored
from armorm.user_files import user_path


@dataclass(eq=False)
class SequenceHead:
    """score = w · h, h the last token's state behind the final norm; NaN for a conversation that the chat template refuses.

    The last token is known from the row's own length, so a padding token that also ends turns (a common choice) moves nothing.
    The head is applied in float32, whatever `dtype` the decoder runs in. `exact` runs each conversation by itself, so that its
    score is the same to the bit beside any other. Raises BackboneError for a folder that can't be read, lacks weights, or
    has another head than one logit. `tokens` counts what was read so far.
    """

    name: str
    folder: str
    _: KW_ONLY
    dtype: DType = "bfloat16"
    device: str = "auto"
    batch_tokens: int = 4096
    max_tokens: int | None = None
    exact: bool = False
    tokens: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        model, tokenizer = _loaded(self.folder, self.dtype)
        model = model.eval().requires_grad_(False).to(device_of(self.device))
        self._decoder, self._head = model.base_model, model.score
        self._renderer = Renderer(tokenizer, max_tokens=longest_of(model.config, self.max_tokens))

    @property
    def fingerprint(self) -> str:
        """A hash of the folder's weights, config and tokenizer, and of how they are read; a hub model is known by its id."""
        path = user_path(self.folder)
        digest = hashlib.sha256(self.folder.encode() if not path.is_dir() else b"")
        digest.update(repr((VERSION, self.longest, self.exact)).encode())
        if path.is_dir():
            hash_files(digest, path, lambda name: name.endswith((".safetensors", ".json", ".jinja", ".model")))
        return digest.hexdigest()[:16]

    @property
    def longest(self) -> int:
        """The most tokens that a conversation keeps."""
        return self._renderer.max_tokens

    def score(self, conversations: Sequence[Conversation]) -> Float[np.ndarray, " n"]:
        """Scores [n], higher is better; order and batch change them by the decoder's rounding alone."""
        return self.scored(conversations).scores

    @torch.inference_mode()
    def scored(self, conversations: Sequence[Conversation]) -> Scored:
        """The same, with what was cut, refused and left out."""
        found = [self._rendered(conversation) for conversation in conversations]
        rendered = {i: one for i, one in enumerate(found) if isinstance(one, Rendered)}
        truncated = np.array([isinstance(one, Rendered) and one.truncated for one in found], dtype=np.bool_)
        faults = tuple(None if isinstance(one, Rendered) else one for one in found)
        notes = tuple(one.notes if isinstance(one, Rendered) else () for one in found)
        return Scored(self._scores(rendered, len(found)), truncated, faults, notes)

    def _scores(self, rendered: Mapping[int, Rendered], n: int) -> Float[np.ndarray, " n"]:
        rows, scores = list(rendered), np.full(n, np.nan)
        for batch in pack(list(rendered.values()), batch_tokens=1 if self.exact else self.batch_tokens, share=False):
            entries = [group[0] for group in batch.groups]
            self.tokens += sum(len(e.rendered) for e in entries)
            logits = self._logits([e.rendered for e in entries])
            for entry, logit in zip(entries, logits, strict=True):
                scores[[rows[row] for row in entry.rows]] = logit
        return scores

    def _rendered(self, conversation: Conversation) -> Rendered | str:
        # What it is as tokens, or why it is refused.
        try:
            return self._renderer.render(conversation)
        except ConversationError as error:
            return str(error)

    def _logits(self, rendered: Sequence[Rendered]) -> list[float]:
        rows = [r.ids for r in rendered]
        ids = pad_right(rows, self._head.weight.device)
        states = run_decoder(self._decoder, {FINAL}, input_ids=ids, use_cache=False)
        hidden = last_states(states[FINAL], rows).float()
        bias = 0 if self._head.bias is None else self._head.bias.float()
        return (hidden @ self._head.weight[0].float() + bias).tolist()


def has_one_logit(folder: str) -> bool:
    """Whether a local folder's config.json names a decoder with a classification head, the form of other reward models."""
    return architecture_of(folder).endswith("ForSequenceClassification")


def _loaded(folder: str, dtype: DType) -> tuple[Any, Any]:
    kind, use = transformers.AutoModelForSequenceClassification, "a reward model with a sequence head"
    model, tokenizer = load_headed(kind, folder, use=use, dtype=dtype)
    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear) or head.out_features != 1:
        raise BackboneError(
            f"{folder}: {type(model).__name__} with {model.config.num_labels} labels has no head of one logit, so it gives no "
            "single score: name a reward model that was trained with num_labels=1"
        )
    return model, tokenizer
