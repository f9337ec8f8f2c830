"""Scores from vLLM's engine: conversations are rendered here, the engine runs decoder and heads, profiles act on what comes back.

In: conversations, a profile by name or whole.  Out: scores, or what is wrong with a conversation alone.
Cost: a request of the engine for each conversation, all at once; vLLM batches them with everybody else's.

Where an answer stands is known from the conversation and sent beside its tokens, so that no text can move it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from armorm.errors import ArmormError, BackboneError, ConversationError
from armorm.features.backbone import is_count
from armorm.features.nuisances import counts_style, style_of
from armorm.model.reward_model import RewardModel
from armorm.rendering import Rendered, Renderer
from armorm.scoring.engine import with_silent
from armorm.scoring.profile import Profile
from armorm.scoring.table import ScoreTable
from armorm.serving.fingerprint import fingerprint
from armorm.serving.service import Limits, Outcome, profile_named, read, served
from armorm.vllm.columns import ANSWER, PROMPT, STYLE, WANTED, Columns

Row = Rendered | ConversationError
LIMITS = Limits(answers=4096, queue_requests=8192, seconds=600.0)
"""Wider than those of `armorm serve`: what waits, waits in vLLM's own queue, which has no bound."""
RETRY_AFTER = 5
RENDERERS = 2
"""Renderers for other lengths than the model's own that are kept."""


class EngineService:
    """Scores with one engine of vLLM's (its `AsyncLLM`), which serves `model`, of which the heads are enough here.

    It is a `Service` and has what the page asks for besides. `profiles` may be asked for by name. `start` gives it the engine;
    until then nothing can be scored. `sums`: what else tells the model from another, such as its folder's SHA256SUMS.
    """

    def __init__(self, model: RewardModel, name: str, profiles: Mapping[str, Profile] | None = None, *, sums: str = "") -> None:
        self.model, self.name, self.profiles = model, name, dict(profiles or {})
        self.objectives, self.preference = model.objectives.names, model.preference
        self.basis, self.profile = model.basis, model.profile
        self.renderer, self.limits = model.renderer, LIMITS
        self.fingerprint = fingerprint(model, json.dumps(model.config.backbone_config, sort_keys=True, default=str), sums)
        self._requests = 0
        self._columns = Columns.of(model)
        self._renderer_of = lru_cache(maxsize=RENDERERS)(model.renderer.bounded)
        self._style = counts_style(model.config.computed)
        self._engine: Any = None
        for profile in self.profiles.values():
            self.basis.bind(profile, 1)

    def start(self, engine: Any) -> None:
        """Take an engine, whose bound of tokens holds beside the model's own."""
        self._engine = engine
        longest = int(engine.model_config.max_model_len)
        if longest < self.renderer.max_tokens:
            self.renderer = self.renderer.bounded(longest)

    async def score(
        self,
        conversations: Sequence[Any],
        *,
        profile: Profile | str | None = None,
        max_tokens: int | None = None,
        deviations: bool = False,
    ) -> list[Outcome]:
        """See `Service.score`. Cancelled, it takes its requests back from the engine."""
        self.limits.check(answers=len(conversations), requests=self._requests, retry_after=RETRY_AFTER)
        self._requests += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await self._scored(conversations, profile, max_tokens, deviations)
        except TimeoutError:
            raise self.limits.late(RETRY_AFTER) from None
        finally:
            self._requests -= 1

    async def _scored(
        self, conversations: Sequence[Any], profile: Profile | str | None, max_tokens: int | None, deviations: bool
    ) -> list[Outcome]:
        chosen = profile_named(self.profiles, profile) if isinstance(profile, str) else profile or self.profile
        steerings = self.basis.bind(chosen, len(conversations))
        renderer = self.renderer if max_tokens is None else self._bounded(max_tokens)
        rows = await asyncio.to_thread(lambda: [read(renderer, one) for one in conversations])
        nothing = torch.full((self._columns.width,), torch.nan)
        outputs = await asyncio.gather(*(self._run(row) for row in rows if isinstance(row, Rendered)))
        told = iter(outputs)
        columns = [next(told) if isinstance(row, Rendered) else nothing for row in rows]
        return await asyncio.to_thread(self._outcomes, rows, columns, steerings, deviations)

    def _bounded(self, tokens: Any) -> Renderer:
        if not is_count(tokens):
            raise BackboneError(f"max_tokens is {tokens!r}: give the number of tokens that a conversation may have")
        return self.renderer if tokens >= self.renderer.max_tokens else self._renderer_of(tokens)

    async def _run(self, row: Rendered) -> Tensor:
        from vllm import PoolingParams
        from vllm.inputs import TokensPrompt

        asked: dict[str, Any] = {PROMPT: len(row.prompt), ANSWER: len(row.answer), WANTED: True}
        if self._style:
            asked[STYLE] = list(style_of(row.text))
        params = PoolingParams(task="classify", use_activation=False, extra_kwargs=asked)
        params.verify(self._engine.model_config)
        prompt = TokensPrompt(prompt_token_ids=list(row.ids))
        (answered,) = [one async for one in self._engine.encode(prompt, params, f"armorm-{uuid4().hex}")]
        if error := getattr(answered, "error", None):
            raise ArmormError(f"vLLM gave no answer ({error}): ask again")
        return answered.outputs.data.reshape(-1).float().cpu()

    def _outcomes(self, rows: Sequence[Row], columns: Sequence[Tensor], steerings: Any, deviations: bool) -> list[Outcome]:
        if not rows:
            return []
        heads, feature = self._columns.split(columns, self.basis.transform)
        refused = tuple(str(row) if isinstance(row, ConversationError) else None for row in rows)
        table = ScoreTable(
            self.basis,
            heads,
            np.array([len(row.answer) if isinstance(row, Rendered) else 0 for row in rows], dtype=np.int64),
            np.array([isinstance(row, Rendered) and row.truncated for row in rows], dtype=np.bool_),
            with_silent(refused, heads),
            steerings,
            {self.basis.response: feature.numpy()} if deviations and self.model.uncertainty is not None else {},
            tuple(row.notes if isinstance(row, Rendered) else () for row in rows),
        )
        return [
            row if isinstance(row, ConversationError) else served(table, i, len(row), deviations=deviations)
            for i, row in enumerate(rows)
        ]
