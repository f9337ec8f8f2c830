"""Steering: a profile at work on a model's gate, debiasing and score.

In: a `Profile`, a model's objectives, what its heads gave.  Out: the same with steered weights, coefficients and terms.
Cost: per row a sort of 2k numbers; nothing where the profile says nothing.

Order of operations, on the gate's weights as shares of their sum (a row sums to 1):

1. blend:  w ← (1 − blend) · gate + blend · own weights
2. scale:  w_i ← factor_i · w_i
3. drop:   w_i ← 0
4. fix:    w_i ← its fixed weight; what the fixed ones leave, R, goes to the others
5. floor, cap, and the sum: of all weights with floor ≤ w ≤ cap that sum to R, those in proportion to step 3:
           w_i ← min(max(λ w_i, floor_i), cap_i), with the one λ for which they sum to R

Then the nuisances' strengths: the debiasing's row of a nuisance (−λ_i) is multiplied with its strength, but for the nuisance's
own column. Last the constraints: each adds the term −penalty · shortfall, so that contributions still sum to the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from armorm.errors import ObjectiveMismatch
from armorm.scoring.profile import Constraint, Profile

__all__ = ["Constraint", "Heads", "Profile", "Steering", "fill", "nuisances_in"]

LEAST = 1e-12
"""The smallest share that counts: below it, objectives are filled alike."""


class Heads(NamedTuple):
    """What a model's heads give for b rows, with or without a profile.

    `rewards` [b k] before debiasing, [0, 1] scale; `gate` [b k]; `coefficients` and `terms` [b q], whose products sum to the
    score: q = k + m computed nuisances, and a profile's constraints. `members` [b s k]: the weights of each of the s gates that
    `gate` is the mean of; None for a gate by itself.
    """

    rewards: Float[Tensor, "b k"]
    gate: Float[Tensor, "b k"]
    coefficients: Float[Tensor, "b q"]
    terms: Float[Tensor, "b q"]
    members: Float[Tensor, "b s k"] | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Heads:
        """The same with every column changed, such as some rows of them."""
        members = None if self.members is None else change(self.members)
        return Heads(change(self.rewards), change(self.gate), change(self.coefficients), change(self.terms), members)

    @property
    def score(self) -> Float[Tensor, " b"]:
        """The scores."""
        return (self.coefficients * self.terms).sum(dim=1)  # over k + m, and constraints


@dataclass(frozen=True)
class Steering:
    """A profile bound to a model's objectives and computed nuisances, in the order of their columns."""

    profile: Profile
    objectives: tuple[str, ...]
    computed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.profile.check(self.objectives)

    @classmethod
    def of(
        cls, profile: Profile, objectives: Sequence[str], computed: Sequence[str], transform: Float[Tensor, "terms k"]
    ) -> Steering:
        """Raises RecipeError with every fault of the profile for this model, the nuisances' names too."""
        profile.check(objectives, nuisances_in(transform, objectives, computed) if profile.nuisances else None)
        return cls(profile, tuple(objectives), tuple(computed))

    @property
    def labels(self) -> tuple[str, ...]:
        """The constraints' terms, in order."""
        return tuple(c.label for c in self.profile.constraints)

    def steer(self, heads: Heads, transform: Float[Tensor, "q k"]) -> Heads:
        """The same rewards with steered weights and their coefficients; terms of constraints come last."""
        gate = self.apply_gate(heads.gate)
        with torch.autocast(gate.device.type, enabled=False):  # trainers put one around whatever they call
            coefficients, terms = gate @ self.matrix(transform).T, heads.terms
        if self.profile.constraints:
            missed = self.shortfalls(heads.rewards)
            penalty = missed.new_tensor([-c.penalty for c in self.profile.constraints]).expand_as(missed)
            coefficients, terms = torch.cat([coefficients, penalty], dim=1), torch.cat([terms, missed], dim=1)
        return Heads(heads.rewards, gate, coefficients, terms, heads.members)

    def steer_members(self, members: Float[Tensor, "b s k"]) -> Float[Tensor, "b s k"]:
        """The weights of each of several gates, steered."""
        return self.apply_gate(members.flatten(0, 1)).reshape(members.shape)

    def apply_gate(self, gate: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Steps 1 to 5; each row keeps its sum. Raises ObjectiveMismatch for another number of objectives."""
        if gate.shape[1] != len(self.objectives):
            raise ObjectiveMismatch(
                f"the gate weighs {gate.shape[1]} objectives, the profile was bound to {len(self.objectives)}"
            )
        if not self.profile.steers_gate:
            return gate
        exact = gate.float() if gate.device.type == "mps" else gate.double()
        whole = exact.sum(dim=1, keepdim=True)  # over k
        weights = self._proportions(exact / whole)
        fixed, free = self._column(self.profile.fix, 0.0, exact), self._free(exact)
        left = (1 - fixed.sum()).clamp_min(0)
        if free.any():
            lower, upper = self._column(self.profile.floor, 0.0, exact)[free], self._column(self.profile.cap, 1.0, exact)[free]
            fixed = fixed.expand_as(weights).clone()
            fixed[:, free] = fill(weights[:, free], lower, torch.minimum(upper, left), left)
        return (fixed * whole).to(gate.dtype)

    def matrix(self, transform: Float[Tensor, "terms k"]) -> Float[Tensor, "terms k"]:
        """The debiasing's matrix with each named nuisance's part multiplied with its strength."""
        if not self.profile.nuisances:
            return transform
        steered, names = transform.clone(), (*self.objectives, *self.computed)
        for name, strength in self.profile.nuisances.items():
            row = names.index(name)
            taken = torch.arange(steered.shape[1], device=steered.device) != row
            steered[row] = torch.where(taken, steered[row] * strength, steered[row])
        return steered

    def shortfalls(self, rewards: Float[Tensor, "b k"]) -> Float[Tensor, "b c"]:
        """By how much each constraint is missed; 0 where it holds."""
        found = []
        for one in self.profile.constraints:
            reward = rewards[:, self.objectives.index(one.objective)]
            found.append((one.at_least - reward if one.at_least is not None else reward - (one.at_most or 0.0)).clamp_min(0))
        return torch.stack(found, dim=1) if found else rewards[:, :0]

    def _proportions(self, shares: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        blend = self.profile.blend or 0.0
        own = self._column(self.profile.weights, 0.0, shares)
        blended = (1 - blend) * shares + blend * own / own.sum().clamp_min(LEAST)
        return blended * self._column(self.profile.scale, 1.0, shares)

    def _free(self, like: Tensor) -> Bool[Tensor, " k"]:
        taken = {*self.profile.drop, *self.profile.fix}
        return torch.tensor([name not in taken for name in self.objectives], device=like.device)

    def _column(self, values: dict[str, float], default: float, like: Tensor) -> Float[Tensor, " k"]:
        return like.new_tensor([values.get(name, default) for name in self.objectives])


def fill(
    base: Float[Tensor, "b f"], lower: Float[Tensor, " f"], upper: Float[Tensor, " f"], total: Float[Tensor, ""]
) -> Float[Tensor, "b f"]:
    """Weights in proportion to `base` within bounds that sum to `total`: min(max(λ base, lower), upper), λ found exactly.

    Needs Σ lower ≤ total ≤ Σ upper.
    """
    base, total = base.clamp_min(LEAST), torch.maximum(torch.minimum(total, upper.sum()), lower.sum())  # what rounding leaves
    # Σ over f of the clipped weights grows with λ and bends at lower/base and upper/base: find the piece that holds the total.
    bends = torch.cat([lower / base, upper / base], dim=1).sort(dim=1).values
    sums = (bends[:, :, None] * base[:, None, :]).clamp(lower, upper).sum(dim=2)
    place = (sums >= total - torch.finfo(base.dtype).eps * 4 * (4 + base.shape[1])).int().argmax(dim=1, keepdim=True)
    high = bends.gather(1, place)
    low = torch.where(place > 0, bends.gather(1, (place - 1).clamp_min(0)), torch.zeros_like(high))
    middle = (low + high) / 2 * base
    at_lower, at_upper = middle <= lower, middle >= upper
    inside = ~(at_lower | at_upper)
    rest = total - (lower * at_lower + upper * at_upper).sum(dim=1, keepdim=True)
    slope = (base * inside).sum(dim=1, keepdim=True)
    factor = torch.where(slope > 0, rest / slope.clamp_min(LEAST), high)
    return (factor * base).clamp(lower, upper)


def nuisances_in(transform: Float[Tensor, "terms k"], objectives: Sequence[str], computed: Sequence[str]) -> tuple[str, ...]:
    """The names of what a debiasing matrix takes out of other rewards: rows that are not 0 outside their own column."""
    others = ~torch.eye(*transform.shape, dtype=torch.bool, device=transform.device)
    taken = ((transform != 0) & others).any(dim=1).tolist()
    return tuple(name for name, is_taken in zip((*objectives, *computed), taken, strict=True) if is_taken)
