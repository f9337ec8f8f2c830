"""Scores in columns: what the heads gave for n answers, under a profile or none, and single `Score`s when they are asked for.

In: the heads' outputs [n …], token counts, what is wrong with refused rows.  Out: `ScoreTable`, `Score`, `Difference`.
Cost: columns of k numbers a row; a `Score` and its standard deviations are made when asked for.

A refused row's numbers are NaN, and `faults` says why. A profile acts on these columns, so it never needs the decoder, and rows
under different profiles may stand in one table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from armorm.errors import ConversationError, DataError
from armorm.objectives import Objectives
from armorm.scoring.explain import Difference, difference
from armorm.scoring.profile import Profile
from armorm.scoring.score import Score
from armorm.scoring.steer import Heads, Steering
from armorm.scoring.uncertainty import ScoreUncertainty, Uncertainty

Profiles = Profile | Sequence[Profile | None] | None
"""One profile for all rows, or one for each; None is none."""


@dataclass(frozen=True, eq=False)
class Basis:
    """What the columns of one model's scores are about.

    `transform` [k+m k] is its debiasing, on the CPU; `response` names the feature that its probe reads and its `uncertainty`
    needs.
    """

    objectives: Objectives
    computed: tuple[str, ...]
    transform: Float[Tensor, "q k"]
    response: str
    uncertainty: Uncertainty | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the terms that every score has."""
        return (*self.objectives.names, *self.computed)

    def bind(self, profile: Profiles, n: int) -> tuple[Steering | None, ...]:
        """A profile for n rows, or one for each, bound to this model; each is checked and bound once.

        Raises RecipeError with every fault of a profile that does not fit, DataError for another number of profiles than rows.
        """
        wanted = [profile] * n if profile is None or isinstance(profile, Profile) else list(profile)
        if len(wanted) != n:
            raise DataError(f"there are {len(wanted)} profiles for {n} conversations: give one for all, or one for each")
        distinct: list[tuple[Profile, Steering]] = []
        return tuple(None if one is None else self._bound(one, distinct) for one in wanted)

    def _bound(self, profile: Profile, distinct: list[tuple[Profile, Steering]]) -> Steering:
        for known, steering in distinct:
            if known is profile or known == profile:
                return steering
        distinct.append((profile, Steering.of(profile, self.objectives.names, self.computed, self.transform)))
        return distinct[-1][1]


@dataclass(frozen=True, eq=False)
class GateSpread:
    """Standard deviations over the seeds of a gate that is the mean of several: of n scores, and of their weights.

    A seed decides the first weights and the batches: the spread says how far the pairs leave open what the gate is, not how far
    all of its seeds may be off alike.
    """

    std: Float[np.ndarray, " n"]
    gate_std: Float[np.ndarray, "n k"]


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of n answers in columns, in the order they came in.

    `trained` holds the heads' outputs [n …] as the gate gave them (NaN in a refused row), float32 on the CPU; `tokens` [n] counts
    each answer's own tokens (0 in a refused row); `truncated` [n] marks conversations that lost their oldest part; `faults` says
    what is wrong with each refused row, None elsewhere; `steerings` holds each row's profile, bound; `features` holds what was to
    be kept, [n w] by name; `notes` says what the chat template left out of each row, or could not keep apart.
    """

    basis: Basis
    trained: Heads
    tokens: Int[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]
    faults: tuple[str | None, ...]
    steerings: tuple[Steering | None, ...]
    features: Mapping[str, Float[np.ndarray, "n _"]] = field(default_factory=dict)
    notes: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, basis: Basis, heads: Heads, tokens: Int[np.ndarray, " n"]) -> ScoreTable:
        """Of what the heads gave for whole rows, none of them refused."""
        columns, none = heads.each(lambda t: t.detach().cpu()), (None,) * len(tokens)
        return cls(basis, columns, tokens, np.zeros(len(tokens), dtype=np.bool_), none, none, notes=((),) * len(tokens))

    def __len__(self) -> int:
        return len(self.faults)

    def __repr__(self) -> str:
        refused = len(self) - len(self.accepted)
        return f"ScoreTable({len(self)} conversations, {len(self.basis.objectives)} objectives, {refused} refused)"

    # -- columns -------------------------------------------------------------------------------------------------------------

    @cached_property
    def rewards(self) -> Float[np.ndarray, "n k"]:
        """Predicted ratings, on the [0, 1] scale."""
        return _exact(self.trained.rewards)

    @cached_property
    def gate(self) -> Float[np.ndarray, "n k"]:
        """Weights of the objectives, under the row's profile."""
        return _exact(self._weighed.gate)

    @cached_property
    def gate_as_trained(self) -> Float[np.ndarray, "n k"]:
        """The weights that the gate itself gave."""
        return _exact(self.trained.gate)

    @cached_property
    def terms(self) -> Float[np.ndarray, "n q"]:
        """What is multiplied: rewards, computed nuisances, shortfalls of constraints; named by `term_names`."""
        return _exact(self._weighed.terms)

    @cached_property
    def coefficients(self) -> Float[np.ndarray, "n q"]:
        """What each term is multiplied with; 0 for a constraint that the row's profile does not have."""
        return _exact(self._weighed.coefficients)

    @cached_property
    def contributions(self) -> Float[np.ndarray, "n q"]:
        """Coefficient · term; a row sums to its score."""
        return self.coefficients * self.terms

    @cached_property
    def scores(self) -> Float[np.ndarray, " n"]:
        """The scores; NaN in a refused row."""
        scores = np.full(len(self), np.nan)
        for steering, rows in self._groups:
            scores[rows] = np.ascontiguousarray(self.contributions[rows][:, self._columns(steering)]).sum(axis=1)
        return scores

    @cached_property
    def term_names(self) -> tuple[str, ...]:
        """The columns of `terms`, `coefficients` and `contributions`: the model's own, then constraints of any row's profile."""
        return (*self.basis.terms, *dict.fromkeys(label for s, _ in self._groups if s is not None for label in s.labels))

    @property
    def accepted(self) -> Int[np.ndarray, " r"]:
        """The places of the rows that are not refused."""
        return np.array([i for i, fault in enumerate(self.faults) if fault is None], dtype=np.int64)

    # -- what can be made of them --------------------------------------------------------------------------------------------

    def steered(self, profile: Profiles) -> ScoreTable:
        """The same answers under a profile, or under one for each row (None: as trained). The decoder is not asked again.

        Raises RecipeError for a profile that does not fit.
        """
        return replace(self, steerings=self.basis.bind(profile, len(self)))

    def deviations(self) -> ScoreUncertainty | None:
        """Standard deviations of all scores and rewards, computed once; None where the model knows no uncertainty, or the table
        has not kept the features that it needs."""
        return self._deviations

    def over_seeds(self) -> GateSpread | None:
        """How far the gates of several seeds are apart, under the row's profile; None where the gate is of one seed."""
        return self._over_seeds

    def difference(self, i: int, j: int, *, names: tuple[str, str] = ("A", "B")) -> Difference:
        """Score i minus score j, term by term, with the difference's own standard deviation where the table has the means.

        Raises ConversationError for a refused row.
        """
        a, b, known = self[i], self[j], self._means
        if known is None:
            return difference(a, b, names=names)
        uncertainty, features = known
        rows = [(features[at : at + 1].astype(np.float64), self.coefficients[at : at + 1]) for at in (i, j)]
        return difference(a, b, names=names, std=float(uncertainty.of_difference(*rows[0], *rows[1])[0]))

    def __iter__(self) -> Iterator[Score]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Score:
        """One answer's score, taken apart. Raises ConversationError for a refused row."""
        if (fault := self.faults[i]) is not None:
            raise refusal(i, len(self), fault, fault.partition(":")[0])
        steering = self.steerings[i]
        columns, names = self._columns(steering), self.basis.objectives.names
        terms = (*self.basis.terms, *(steering.labels if steering else ()))
        std, reward_std = self._deviation(i)
        seeds = self.over_seeds()

        def named(of: Sequence[str], values: Float[np.ndarray, " _"]) -> dict[str, float]:
            return dict(zip(of, values.tolist(), strict=True))

        return Score(
            score=float(self.scores[i]),
            rewards=named(names, self.rewards[i]),
            raw=named(names, self._raw[i]),
            gate=named(names, self.gate[i]),
            terms=named(terms, self.terms[i, columns]),
            coefficients=named(terms, self.coefficients[i, columns]),
            contributions=named(terms, self.contributions[i, columns]),
            truncated=bool(self.truncated[i]),
            notes=self.notes[i],
            std=std,
            reward_std=reward_std,
            gate_std=named(names, seeds.gate_std[i]) if seeds else {},
            std_from_gate=float(seeds.std[i]) if seeds else None,
            profile=steering.profile.name if steering else None,
            gate_as_trained=named(names, self.gate_as_trained[i]) if steering else {},
            constraints=steering.labels if steering else (),
        )

    # -- inside --------------------------------------------------------------------------------------------------------------

    @cached_property
    def _groups(self) -> list[tuple[Steering | None, Int[np.ndarray, " r"]]]:
        # The accepted rows of each profile.
        by_steering: dict[int, tuple[Steering | None, list[int]]] = {}
        for i in self.accepted.tolist():
            by_steering.setdefault(id(self.steerings[i]), (self.steerings[i], []))[1].append(i)
        return [(steering, np.array(rows, dtype=np.int64)) for steering, rows in by_steering.values()]

    @cached_property
    def _weighed(self) -> Heads:
        # The heads' outputs with each row under its profile.
        if not any(self.steerings):
            return self.trained
        gate = torch.full_like(self.trained.gate, torch.nan)
        coefficients, terms = (torch.full((len(self), len(self.term_names)), torch.nan) for _ in range(2))
        for steering, at in self._groups:
            rows, columns = torch.from_numpy(at), torch.tensor(self._columns(steering))
            heads = self.trained.each(itemgetter(rows))
            if steering is not None and steering.profile.steers:
                heads = steering.steer(heads, self.basis.transform)
            gate[rows], coefficients[rows], terms[rows] = heads.gate, 0, 0
            coefficients[rows[:, None], columns], terms[rows[:, None], columns] = heads.coefficients, heads.terms
        return Heads(self.trained.rewards, gate, coefficients, terms)

    def _columns(self, steering: Steering | None) -> list[int]:
        # The terms that a row under this profile has.
        labels = () if steering is None else steering.labels
        return [*range(len(self.basis.terms)), *(self.term_names.index(label) for label in labels)]

    @cached_property
    def _raw(self) -> Float[np.ndarray, "n k"]:
        return self.basis.objectives.from_unit(self.rewards)

    @property
    def _means(self) -> tuple[Uncertainty, Float[np.ndarray, "n w"]] | None:
        features = self.features.get(self.basis.response)
        return None if self.basis.uncertainty is None or features is None else (self.basis.uncertainty, features)

    @cached_property
    def _deviations(self) -> ScoreUncertainty | None:
        if self._means is None:
            return None
        uncertainty, features = self._means
        std, reward_std = np.full(len(self), np.nan), np.full(self.rewards.shape, np.nan)
        rows = self.accepted
        known = uncertainty.of_score(features[rows].astype(np.float64), self.coefficients[rows])
        std[rows], reward_std[rows] = known.std, known.reward_std
        return ScoreUncertainty(std, reward_std)

    @cached_property
    def _over_seeds(self) -> GateSpread | None:
        if self.trained.members is None:
            return None
        gate_std, std = np.full(self.gate.shape, np.nan), np.full(len(self), np.nan)
        for steering, rows in self._groups:
            members, matrix = self.trained.members[torch.from_numpy(rows)], self.basis.transform
            if steering is not None:
                members, matrix = steering.steer_members(members), steering.matrix(matrix)
            gate_std[rows] = members.double().std(dim=1).numpy()
            debiased = self.trained.terms[torch.from_numpy(rows)].double() @ matrix.double()
            std[rows] = (members.double() * debiased[:, None]).sum(dim=2).std(dim=1).numpy()  # over k, then over seeds
        return GateSpread(std, gate_std)

    def _deviation(self, i: int) -> tuple[float | None, dict[str, float | None]]:
        known = self.deviations()
        if known is None:
            return None, {}
        values = (None if np.isnan(x) else x for x in known.reward_std[i].tolist())
        return float(known.std[i]), dict(zip(self.basis.objectives.names, values, strict=True))


def refusal(i: int, n: int, what: str, fault: str) -> ConversationError:
    """The error that says which of n conversations is refused, and for which fault."""
    return ConversationError(f"conversation {i + 1} of {n}: {what}" if n > 1 else what, fault)


def _exact(column: Tensor) -> Float[np.ndarray, "n _"]:
    return column.double().numpy()
