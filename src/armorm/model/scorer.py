"""A reward model as the benchmark sees it: conversations in, numbers out.

In: a `RewardModel`.  Out: a `Scorer`.  Cost: the decoder's pass; prompts that several answers share run once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from armorm.conversation import Conversation
from armorm.errors import ConversationError
from armorm.model.reward_model import RewardModel


@dataclass(frozen=True)
class ModelScorer:
    """Scores of one reward model; NaN for a conversation that its chat template refuses."""

    name: str
    model: RewardModel
    batch_tokens: int = 4096

    @classmethod
    def load(cls, name: str, *, batch_tokens: int = 4096) -> ModelScorer:
        """A model folder or hub id, on a GPU where there is one. Raises CheckpointError when it is no reward model."""
        model = RewardModel.from_pretrained(name)
        return cls(name, model.to("cuda") if torch.cuda.is_available() else model, batch_tokens)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the folder's weights, config and tokenizer; of a hub model, its id and commit."""
        folder = Path(self.name)
        if not folder.is_dir():
            return f"{self.name}@{getattr(self.model.config, '_commit_hash', None)}"
        digest = hashlib.sha256()
        for file in sorted(f for f in folder.iterdir() if f.suffix in {".safetensors", ".json", ".jinja", ".model"}):
            with file.open("rb") as stream:
                digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()[:16]

    def score(self, conversations: Sequence[Conversation]) -> Float[np.ndarray, " n"]:
        """Scores [n], higher is better."""
        try:
            found = self.model.score(conversations, batch_tokens=self.batch_tokens)
        except ConversationError:
            if len(conversations) == 1:
                return np.array([np.nan])
            return np.concatenate([self.score([one]) for one in conversations])
        return np.array([one.score for one in found], dtype=np.float64)
