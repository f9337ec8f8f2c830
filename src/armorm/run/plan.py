"""`train --dry-run`: a recipe checked, and what running it would do, without loading a model or calling a network.

In: a recipe's path.  Out: JSON facts.  Cost: reading the local files.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from armorm.data.files import expand
from armorm.recipe import Source, Suite, load_recipe


def plan(path: Path) -> dict[str, Any]:
    """What a recipe reads, fits and judges. Raises RecipeError with every fault."""
    recipe = load_recipe(path)
    response, prompt = recipe.features.parts
    return {
        "recipe": recipe.name,
        "backbone": recipe.backbone.model,
        "objectives": list(recipe.load_objectives().names),
        "ratings": [_place(s) for s in recipe.ratings],
        "pairs": [_place(s) for s in recipe.pairs],
        "bench": [{"name": "held-out pairs", "share of prompts": recipe.splits.test}, *(_suite(s) for s in recipe.bench)],
        "features": {"response": [str(p) for p in response], "prompt": [str(p) for p in prompt]},
        "probe": {"candidates": recipe.features.response, "strengths": len(recipe.probe.alphas), "folds": recipe.probe.folds},
        "debias": recipe.debias.model_dump(mode="json"),
        "gate": asdict(recipe.gate),
        "stages": ["rows", "features", "probe", "uncertainty", "debias", "gate", "model", "bench", "report"],
    }


def _suite(suite: Suite) -> dict[str, Any]:
    if suite.source is not None:
        return {"name": suite.name, **_place(suite.source)}
    return {"name": suite.name, "benchmark": suite.benchmark, "path": suite.path, "cap": suite.cap}


def _place(source: Source) -> dict[str, Any]:
    if source.source is not None:
        return {"source": source.source, "path": source.path, "cap": source.cap}
    if source.path is not None:
        return {"files": [str(f) for f in expand(source.path)], "cap": source.cap}
    if source.hub is not None:
        return {"hub": source.hub, "split": source.split or "train", "revision": source.revision, "cap": source.cap}
    return {"builtin": source.builtin}
