"""The scoring core: conversations go in, a table of scores comes out; everything that scores with a reward model asks it.

In: conversations, a model, a profile or one for each row.  Out: `ScoreTable`.
Cost: one pass of the decoder over the conversations' tokens, packed into batches by a token budget (prompts that several answers
share run once); features are held for one batch, unless they are asked for.

What the model can't read is refused here and nowhere else, before the decoder: such a row has a fault in the table, and the other
rows cost no more than without it. An engine holds nothing that two calls share, so any number of threads may use one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from armorm.errors import BackboneError, ConversationError
from armorm.features.backbone import Backbone, check_positions, is_count
from armorm.features.extract import Pooled, stream_features
from armorm.features.nuisances import STYLE, counts_style, style_of
from armorm.features.spec import FeatureSpec, Pooling, parts_of
from armorm.rendering import Rendered, Renderer
from armorm.scoring.profile import Profile
from armorm.scoring.steer import Heads, Steering
from armorm.scoring.table import Basis, Profiles, ScoreTable, refusal

Renderings = list[Rendered | None]
Faults = tuple[str | None, ...]
NOT_FINITE = "not-finite: the model gives this answer no finite number; score it in float32, or leave it out"
Steerings = tuple[Steering | None, ...]


@runtime_checkable
class ScoringModel(Protocol):
    """What the engine needs of a reward model. `profile` is the one that is baked in, if any."""

    @property
    def backbone(self) -> Backbone: ...

    @property
    def renderer(self) -> Renderer: ...

    @property
    def basis(self) -> Basis: ...

    @property
    def response_spec(self) -> FeatureSpec: ...

    @property
    def prompt_spec(self) -> FeatureSpec: ...

    @property
    def profile(self) -> Profile | None: ...

    def heads(
        self,
        response: Float[Tensor, "b w"],
        prompt: Float[Tensor, "b v"],
        response_tokens: Float[Tensor, " b"],
        style: Float[Tensor, "b s"] | None = None,
    ) -> Heads: ...


class Engine:
    """Scores conversations with one model, in batches of about `batch_tokens` padded tokens.

    `max_tokens` bounds a conversation, in place of the model's own bound. What else stands in a batch changes a score by no more
    than the decoder's rounding; `exact` runs each conversation by itself, so that its score is the same to the bit whatever
    stands beside it. Raises BackboneError for more tokens than the decoder has positions.
    """

    def __init__(
        self, model: ScoringModel, *, batch_tokens: int = 4096, max_tokens: int | None = None, exact: bool = False
    ) -> None:
        if not is_count(batch_tokens):
            raise BackboneError(f"batch_tokens is {batch_tokens!r}: give the number of tokens that a batch may hold (4096)")
        self.model = model
        self.batch_tokens = batch_tokens
        self.exact = exact
        self.renderer = model.renderer
        if max_tokens is not None:
            check_positions(model.backbone.model.config, max_tokens)
            self.renderer = self.renderer.bounded(max_tokens)

    @torch.inference_mode()
    def score(
        self,
        conversations: Sequence[Any],
        *,
        profile: Profiles = None,
        features: Sequence[FeatureSpec] = (),
        deviations: bool = False,
        strict: bool = False,
    ) -> ScoreTable:
        """The conversations' scores, in order; they depend on nothing else in the list beyond rounding.

        `profile` steers all rows, or one for each steers its own; without one, the profile that is baked in. `features` names
        features of the responses that the table keeps; `deviations` keeps those that standard deviations need, where the model
        knows its uncertainty. A row that is no conversation, or that the chat template refuses, has its fault in the table;
        `strict` raises ConversationError for it instead, before the decoder runs. Raises RecipeError for a profile that does not
        fit, BackboneError for a model without tokenizer or features that are not finite.
        """
        basis = self.model.basis
        steerings = basis.bind(self._defaults(profile), len(conversations))
        rendered, faults = self._render(conversations, strict=strict)
        kept = [*features, *((self.model.response_spec,) if deviations and basis.uncertainty is not None else ())]
        return self._run(basis, rendered, faults, steerings, kept)

    @torch.inference_mode()
    def score_rendered(self, rendered: Sequence[Rendered], *, profile: Profiles = None, deviations: bool = False) -> ScoreTable:
        """The same for conversations that a renderer of this model's has read before, of any length that the decoder takes."""
        basis = self.model.basis
        steerings = basis.bind(self._defaults(profile), len(rendered))
        kept = (self.model.response_spec,) if deviations and basis.uncertainty is not None else ()
        return self._run(basis, list(rendered), (None,) * len(rendered), steerings, kept)

    def _defaults(self, profile: Profiles) -> Profiles:
        # A row without a profile of its own is scored under the one that is baked in.
        own = self.model.profile
        if profile is None or isinstance(profile, Profile):
            return profile or own
        return [one or own for one in profile]

    def _render(self, conversations: Sequence[Any], *, strict: bool) -> tuple[Renderings, Faults]:
        rendered, faults = list[Rendered | None](), list[str | None]()
        for i, conversation in enumerate(conversations):
            try:
                rendered.append(self.renderer.render(conversation))
                faults.append(None)
            except ConversationError as error:
                if strict:
                    raise refusal(i, len(conversations), str(error), error.fault) from error
                rendered.append(None)
                faults.append(str(error))
        return rendered, tuple(faults)

    def _run(
        self, basis: Basis, rendered: Renderings, faults: Faults, steerings: Steerings, kept: Sequence[FeatureSpec]
    ) -> ScoreTable:
        model, n = self.model, len(rendered)
        tokens = torch.tensor([0 if row is None else len(row.answer) for row in rendered], dtype=torch.long)
        accepted = torch.tensor([i for i, row in enumerate(rendered) if row is not None], dtype=torch.long)
        style = _style_of(rendered) if counts_style(basis.computed) else None
        features = {str(s): np.full((n, len(s.parts) * model.backbone.width), np.nan, dtype=np.float32) for s in kept}
        places, heads = list[Tensor](), list[Heads]()
        for pooled in self._stream([row for row in rendered if row is not None], kept):
            at = accepted[list(pooled.rows)]
            response, prompt = join_pooled(pooled.response, model.response_spec), join_pooled(pooled.prompt, model.prompt_spec)
            counts = None if style is None else style[at].to(response.device)
            heads.append(model.heads(response, prompt, tokens[at].float().to(response.device), counts))
            places.append(at)
            for spec in kept:
                features[str(spec)][at] = join_pooled(pooled.response, spec).cpu().numpy()
        columns = _scatter(places, heads, n, basis)
        faults = with_silent(faults, columns)
        truncated = np.array([row is not None and row.truncated for row in rendered], dtype=np.bool_)
        notes = tuple(() if row is None else row.notes for row in rendered)
        return ScoreTable(basis, columns, tokens.numpy(), truncated, faults, steerings, features, notes)

    def _stream(self, rendered: Sequence[Rendered], kept: Sequence[FeatureSpec]) -> Iterator[Pooled]:
        model, prompt = self.model, self.model.prompt_spec.parts
        turn = any(part.pooling is Pooling.TURN for part in prompt)
        found = stream_features(
            rendered,
            model.backbone,
            response=parts_of([model.response_spec, *kept]),
            prompt=prompt,
            header=len(self.renderer.header_ids) if turn else 1,
            batch_tokens=1 if self.exact else self.batch_tokens,
            share=not self.exact,
        )
        return (one for pooled in found for one in _row_by_row(pooled)) if self.exact else found


def _style_of(rendered: Renderings) -> Float[Tensor, "n s"]:
    # What stands in the answers' texts; nothing in a refused row's.
    return torch.tensor([style_of("" if row is None else row.text) for row in rendered]).reshape(-1, len(STYLE)).float()


def with_silent(faults: Faults, columns: Heads) -> Faults:
    """The faults, with one for each row whose heads gave a number that is none: a score of NaN is no score."""
    every = [column.flatten(1) for column in columns if column is not None]
    sound = torch.stack([torch.isfinite(column).all(dim=1) for column in every]).all(dim=0).tolist()
    return tuple(fault or (None if good else NOT_FINITE) for fault, good in zip(faults, sound, strict=True))


def _row_by_row(pooled: Pooled) -> Iterator[Pooled]:
    # The heads round by the number of rows too: a conversation that comes twice is one pass of the decoder, and two rows.
    for i, row in enumerate(pooled.rows):
        response, prompt = ({part: v[i : i + 1] for part, v in side.items()} for side in (pooled.response, pooled.prompt))
        yield Pooled((row,), response, prompt, pooled.tokens)


def join_pooled(pooled: Mapping[str, Float[Tensor, "b d"]], spec: FeatureSpec) -> Float[Tensor, "b w"]:
    """A spec's feature: its parts side by side."""
    return torch.cat([pooled[str(part)] for part in spec.parts], dim=1)


def _scatter(places: Sequence[Tensor], heads: Sequence[Heads], n: int, basis: Basis) -> Heads:
    # The batches' outputs in the order of the rows; NaN where no batch held the row.
    k, q = len(basis.objectives), len(basis.terms)
    if not places:
        return Heads(*(torch.full((n, width), torch.nan) for width in (k, k, q, q)))
    columns, at = heads[0].each(lambda column: torch.full((n, *column.shape[1:]), torch.nan)), torch.cat(list(places))
    for column, of in zip(columns, zip(*heads, strict=True), strict=True):
        if column is not None:
            column[at] = torch.cat(of).cpu()
    return columns
