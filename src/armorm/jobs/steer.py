"""`armorm steer`: what a profile does to a model, and a copy of the model that always scores under it.

In: a profile's file, a model's name.  Out: JSON facts; a model folder.  Cost: loading the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from armorm.disk import writing_folder
from armorm.jobs.exchange import check_free
from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Profile
from armorm.scoring.steer import Steering


def check_profile(profile: Path, name: str) -> dict[str, Any]:
    """Whether it fits, and what it does to the model's mean weights, as JSON facts. Raises RecipeError with every fault."""
    steering, model = _bound(profile, name)
    reference = model.reference
    facts = {"profile": steering.profile.to_json(), "model": name, "fits": True}
    if reference is None or not len(reference.gates):
        return facts
    gates = torch.from_numpy(reference.gates).double()
    means = [g.mean(dim=0).tolist() for g in (gates, steering.apply_gate(gates))]  # over the prompts
    weights = {
        objective: {"as_trained": before, "steered": after}
        for objective, before, after in zip(model.objectives.names, *means, strict=True)
    }
    return facts | {"prompts": len(gates), "mean_weights": weights}


def bake_profile(name: str, profile: Path, out: Path) -> dict[str, Any]:
    """Write the model with the profile in its config, and beside it; what was written, as JSON facts.

    Raises RecipeError for a profile that does not fit, DataError where `out` holds something, StorageError where it can't be
    written.
    """
    check_free(out)
    steering, model = _bound(profile, name)
    model.config.profile = steering.profile.to_json()
    with writing_folder(out) as beside:
        model.save_pretrained(beside)
    return {"model": str(out), "profile": steering.profile.to_json()}


def _bound(profile: Path, name: str) -> tuple[Steering, RewardModel]:
    wanted, model = Profile.from_yaml(profile), RewardModel.from_pretrained(name)
    (steering,) = model.basis.bind(wanted, 1)
    assert steering is not None  # there is a profile
    return steering, model
