"""`train --dry-run`: a recipe and the rows on this machine checked, and what running it would do: no network.

In: a recipe's path.  Out: JSON facts.  Cost: reading the local files, and their rows through the chat template; to be priced, a
trial of the decoder where it is here and small.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from armorm.data.files import expand
from armorm.data.summary import SourceFacts
from armorm.features.backbone import check_local, device_of, is_ready, located
from armorm.fit.gate_training import device_of as gate_device_of
from armorm.recipe import HELD_OUT, Recipe, Source, Suite, load_recipe
from armorm.rendering import Renderer
from armorm.run.extraction import LazyBackbone
from armorm.run.pricing import price
from armorm.run.rows import all_here, cap_suites, complete, survey_rows
from armorm.run.train import stages_of


def plan(path: Path, *, priced: bool = False) -> dict[str, Any]:
    """What a recipe reads, fits and judges, and what that costs if it is to be `priced`.

    Raises RecipeError with every fault, BackboneError and FitError for a device that this machine does not have.
    """
    recipe = load_recipe(path)
    objectives = recipe.load_objectives()
    response, prompt = recipe.features.parts
    device_of(recipe.backbone.device)
    gate_device_of(recipe.gate.device)
    settings = recipe.backbone
    if is_ready(settings.model, settings.dtype):
        check_local(settings.model, [*response, *prompt], dtype=settings.dtype, max_tokens=settings.max_tokens)
    renderer, unchecked = _renderer(recipe)
    found, faults = survey_rows(recipe, objectives, renderer=renderer)
    whole, made = all_here(recipe), recipe.made
    kept = complete(recipe, found, renderer=renderer, ordered=bool(made)) if whole else cap_suites(recipe, found)
    if made and not whole:
        unchecked.append("what is made of the sources' answers, since some are not on this machine")
    return {
        "recipe": recipe.name,
        "backbone": recipe.backbone.model,
        "objectives": list(objectives.names),
        "ratings": [_place(s) for s in recipe.ratings],
        "pairs": [_place(s) for s in recipe.pairs],
        "bench": [{"name": HELD_OUT, "share of prompts": recipe.splits.test}, *(_suite(s) for s in recipe.bench)],
        "rows": [_counts(facts) for facts in kept],
        "faults": faults,
        **({"not checked": "; ".join(unchecked)} if unchecked else {}),
        "features": {"response": [str(p) for p in response], "prompt": [str(p) for p in prompt]},
        "probe": {"candidates": recipe.features.response, "strengths": len(recipe.probe.alphas), "folds": recipe.probe.folds},
        **({"harmless": list(recipe.harmless)} if recipe.harmless else {}),
        "debias": recipe.debias.model_dump(mode="json"),
        "gate": asdict(recipe.gate),
        "stages": ["rows", "features", *stages_of(recipe)],
        **({"costs": price(recipe, kept, renderer)} if priced else {}),
    }


def _renderer(recipe: Recipe) -> tuple[Renderer | None, list[str]]:
    # The chat template is asked where the tokenizer is on this machine; a hub is not, and nothing is converted.
    if not is_ready(recipe.backbone.model, recipe.backbone.dtype):
        return None, [f"layers, positions and chat template of {recipe.backbone.model}: it is converted when it is first used"]
    if not Path(located(recipe.backbone.model, recipe.backbone.dtype)).is_dir():
        return None, [f"whether the chat template of {recipe.backbone.model} takes the rows: it is not on this machine"]
    return LazyBackbone(recipe.backbone, [], lambda _line: None).renderer, []


def _counts(facts: SourceFacts) -> dict[str, Any]:
    rows = {"source": facts.name, "kind": facts.kind, "records": facts.total, "rows": len(facts.rows)}
    return {**rows, "left out": dict(facts.drops), "notes": dict(facts.notes)}


def _suite(suite: Suite) -> dict[str, Any]:
    if suite.source is not None:
        return {"name": suite.name, **_place(suite.source)}
    return {"name": suite.name, "benchmark": suite.benchmark, "path": suite.path, "cap": suite.cap}


def _place(source: Source) -> dict[str, Any]:
    if source.made:
        return {"made": list(source.made), "of": list(source.of), "cap": source.cap, "share": source.share}
    if source.source is not None:
        return {"source": source.source, "path": source.path, "cap": source.cap}
    if source.path is not None:
        return {"files": [str(f) for f in expand(source.path)], "cap": source.cap}
    if source.hub is not None:
        return {"hub": source.hub, "split": source.split or "train", "revision": source.revision, "cap": source.cap}
    return {"builtin": source.builtin}
