"""Scores from vLLM's engine: conversations are rendered here, the engine runs decoder and heads, profiles act on what comes back.

In: conversations, a profile by name or whole.  Out: scores, or what is wrong with a conversation alone.
Cost: a request of the engine for each conversation, all at once; vLLM batches them with everybody else's.

Where an answer stands is known from the conversation and sent beside its tokens, so that no text can move it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from armorm.errors import ArmormError, BackboneError, ConversationError, RecipeError
from armorm.features.backbone import is_count
from armorm.features.nuisances import counts_style, style_of
from armorm.model.reward_model import RewardModel
from armorm.rendering import Rendered, Renderer
from armorm.scoring.engine import with_silent
from armorm.scoring.profile import Profile
from armorm.scoring.table import ScoreTable
from armorm.serving.service import Outcome, read, served
from armorm.vllm.columns import ANSWER, PROMPT, STYLE, WANTED, Columns

Row = Rendered | ConversationError


class EngineService:
    """Scores with one engine of vLLM's (its `AsyncLLM`), which serves `model`, of which the heads are enough here.

    `profiles` may be asked for by name. `start` gives it the engine; until then nothing can be scored.
    """

    def __init__(self, model: RewardModel, name: str, profiles: Mapping[str, Profile] | None = None) -> None:
        self.model, self.name, self.profiles = model, name, dict(profiles or {})
        self.objectives, self.preference = model.objectives.names, model.preference
        self.renderer = model.renderer
        self._columns, self._basis = Columns.of(model), model.basis
        self._style = counts_style(model.config.computed)
        self._engine: Any = None
        for profile in self.profiles.values():
            self._basis.bind(profile, 1)

    def start(self, engine: Any) -> None:
        """Take an engine, whose bound of tokens holds beside the model's own."""
        self._engine = engine
        longest = int(engine.model_config.max_model_len)
        if longest < self.renderer.max_tokens:
            self.renderer = self._bounded(longest)

    async def score(
        self, conversations: Sequence[Any], *, profile: Profile | str | None = None, max_tokens: int | None = None
    ) -> list[Outcome]:
        """An outcome for each conversation, in order.

        Raises RecipeError for a profile that is unknown or does not fit, BackboneError for a `max_tokens` that can't be.
        Cancelled, it takes its requests back from the engine.
        """
        chosen = self._profile(profile)
        steerings = self._basis.bind(chosen, len(conversations))
        renderer = self.renderer if max_tokens is None else self._bounded(max_tokens)
        rows = await asyncio.to_thread(lambda: [read(renderer, one) for one in conversations])
        nothing = torch.full((self._columns.width,), torch.nan)
        outputs = await asyncio.gather(*(self._run(row) for row in rows if isinstance(row, Rendered)))
        told = iter(outputs)
        columns = [next(told) if isinstance(row, Rendered) else nothing for row in rows]
        return await asyncio.to_thread(self._outcomes, rows, columns, steerings)

    def _profile(self, asked: Profile | str | None) -> Profile | None:
        if isinstance(asked, str):
            if asked not in self.profiles:
                known = f"there are {', '.join(self.profiles)}" if self.profiles else "this server knows none"
                raise RecipeError(f"there is no profile called {asked!r}: {known}; send the profile itself")
            return self.profiles[asked]
        return asked or self.model.profile

    def _bounded(self, tokens: Any) -> Renderer:
        if not is_count(tokens) or tokens > self.renderer.max_tokens:
            raise BackboneError(f"max_tokens is {tokens!r}: give a number of tokens up to {self.renderer.max_tokens}")
        return Renderer(self.renderer.tokenizer, max_tokens=tokens, rendering=self.renderer.rendering)

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

    def _outcomes(self, rows: Sequence[Row], columns: Sequence[Tensor], steerings: Any) -> list[Outcome]:
        if not rows:
            return []
        heads, feature = self._columns.split(columns, self._basis.transform)
        refused = tuple(str(row) if isinstance(row, ConversationError) else None for row in rows)
        table = ScoreTable(
            self._basis,
            heads,
            np.array([len(row.answer) if isinstance(row, Rendered) else 0 for row in rows], dtype=np.int64),
            np.array([isinstance(row, Rendered) and row.truncated for row in rows], dtype=np.bool_),
            with_silent(refused, heads),
            steerings,
            {} if self.model.uncertainty is None else {self._basis.response: feature.numpy()},
            tuple(row.notes if isinstance(row, Rendered) else () for row in rows),
        )
        return [row if isinstance(row, ConversationError) else served(table, i, len(row)) for i, row in enumerate(rows)]
