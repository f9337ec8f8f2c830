"""A reward model with its name, as programs on files and benchmarks hold it: conversations in, numbers or tables out.

In: a model folder or hub id.  Out: a `Scorer`; its fingerprint, by which scores are kept.  Cost: the engine's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float

from armorm.conversation import Conversation, Span
from armorm.disk import hash_files
from armorm.model.folder import BESIDE, folder_beside, local
from armorm.model.reward_model import RewardModel
from armorm.rendering import VERSION
from armorm.scorers import Reading, Scored
from armorm.scoring.engine import Engine
from armorm.scoring.profile import Profile
from armorm.scoring.uncertainty import FILES as UNCERTAINTY_FILES


@dataclass(frozen=True)
class ModelScorer:
    """Scores of one reward model, under a profile or none, read as `Reading` says."""

    name: str
    model: RewardModel
    batch_tokens: int = 4096
    profile: Profile | None = None
    max_tokens: int | None = None
    exact: bool = False

    @classmethod
    def load(cls, name: str, *, profile: Profile | None = None, **reading: Unpack[Reading]) -> ModelScorer:
        """A model folder or hub id, on a GPU where there is one.

        Raises CheckpointError when it is no reward model, RecipeError for a profile that does not fit it, BackboneError for more
        tokens than the decoder takes.
        """
        name = local(name)
        model = RewardModel.from_pretrained(name)
        model.basis.bind(profile, 1)
        scorer = cls(name, model.to("cuda") if torch.cuda.is_available() else model, profile=profile, **reading)
        _ = scorer.engine  # says what does not fit
        return scorer

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that scores depend on: weights, config, tokenizer, profile, how they are read; of a hub
        model, its id and commit."""
        config = {k: v for k, v in self.model.config.to_dict().items() if k not in _VOLATILE}
        asked = {"version": VERSION, "max_tokens": self.max_tokens, "exact": self.exact}
        digest = hashlib.sha256(json.dumps([config, asked], sort_keys=True, default=str).encode())
        if self.profile is not None:
            digest.update(self.profile.fingerprint.encode())
        folder = Path(self.name)
        if not folder.is_dir():
            digest.update(f"{self.name}@{getattr(self.model.config, '_commit_hash', None)}".encode())
            return digest.hexdigest()[:16]
        hash_files(digest, folder, lambda name: name not in BESIDE and name.endswith(_READ))
        return digest.hexdigest()[:16]

    @cached_property
    def fingerprint_with_deviations(self) -> str:
        """The same for what is written with standard deviations, which depend on the uncertainty too; `fingerprint` where the
        model has none."""
        beside = folder_beside(self.name, {}) if Path(self.name).is_dir() else None
        if self.model.uncertainty is None or beside is None:  # a hub model's commit names all its files
            return self.fingerprint
        digest = hashlib.sha256(self.fingerprint.encode())
        hash_files(digest, beside, UNCERTAINTY_FILES.__contains__)
        return digest.hexdigest()[:16]

    @property
    def span(self) -> Span:
        """What of a conversation is its answer."""
        return self.model.renderer.rendering.answer

    @property
    def engine(self) -> Engine:
        """The scoring core with this model."""
        return self.model.engine(batch_tokens=self.batch_tokens, max_tokens=self.max_tokens, exact=self.exact)

    @property
    def longest(self) -> int:
        """The most tokens that a conversation keeps."""
        return self.engine.renderer.max_tokens

    def score(self, conversations: Sequence[Conversation]) -> Float[np.ndarray, " n"]:
        """Scores [n], higher is better; NaN for what is no conversation or what the chat template refuses."""
        return self.scored(conversations).scores

    def scored(self, conversations: Sequence[Conversation]) -> Scored:
        """The same, with what was cut, refused and left out."""
        table = self.engine.score(conversations, profile=self.profile)
        return Scored(table.scores, table.truncated, table.faults, table.notes)


_READ = (".safetensors", "tokenizer.json", "tokenizer_config.json", ".jinja", ".model")
_FOR_OTHERS = {"architectures", "auto_map", "dtype", "id2label", "label2id", "measured", "problem_type"}
_VOLATILE = {"transformers_version", "_name_or_path", "name_or_path", *_FOR_OTHERS}
