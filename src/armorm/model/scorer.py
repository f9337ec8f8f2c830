"""A reward model as the benchmark sees it: conversations in, numbers out.

In: a `RewardModel`.  Out: a `Scorer`.  Cost: the decoder's pass; prompts that several answers share run once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from armorm.conversation import Conversation
from armorm.disk import hash_files
from armorm.errors import ConversationError
from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Profile
from armorm.scoring.reference import FILES as REFERENCE_FILES
from armorm.scoring.uncertainty import FILES as UNCERTAINTY_FILES


@dataclass(frozen=True)
class ModelScorer:
    """Scores of one reward model; NaN for a conversation that its chat template refuses."""

    name: str
    model: RewardModel
    batch_tokens: int = 4096
    profile: Profile | None = None

    @classmethod
    def load(
        cls, name: str, *, batch_tokens: int = 4096, profile: Profile | None = None, deviations: bool = False
    ) -> ModelScorer:
        """A model folder or hub id, on a GPU where there is one.

        Standard deviations cost more than all the heads together, so the model computes them only if `deviations` are wanted.
        Raises CheckpointError when it is no reward model, RecipeError for a profile that does not fit it.
        """
        model = RewardModel.from_pretrained(name)
        model.steering(profile)
        if not deviations:
            model.uncertainty = None
        return cls(name, model.to("cuda") if torch.cuda.is_available() else model, batch_tokens, profile)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that scores depend on: weights, config, tokenizer, profile; of a hub model, its id and commit."""
        config = {k: v for k, v in self.model.config.to_dict().items() if k not in _VOLATILE}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        if self.profile is not None:
            digest.update(self.profile.fingerprint.encode())
        folder = Path(self.name)
        if not folder.is_dir():
            digest.update(f"{self.name}@{getattr(self.model.config, '_commit_hash', None)}".encode())
            return digest.hexdigest()[:16]
        aside = {*UNCERTAINTY_FILES, *REFERENCE_FILES}
        hash_files(digest, folder, lambda name: name not in aside and name.endswith(_READ))
        return digest.hexdigest()[:16]

    def score(self, conversations: Sequence[Conversation]) -> Float[np.ndarray, " n"]:
        """Scores [n], higher is better."""
        try:
            found = self.model.score(conversations, batch_tokens=self.batch_tokens, profile=self.profile)
        except ConversationError:
            if len(conversations) == 1:
                return np.array([np.nan])
            return np.concatenate([self.score([one]) for one in conversations])
        return np.array([one.score for one in found], dtype=np.float64)


_READ = (".safetensors", "tokenizer.json", "tokenizer_config.json", ".jinja", ".model")
_VOLATILE = {"transformers_version", "_name_or_path", "name_or_path"}
