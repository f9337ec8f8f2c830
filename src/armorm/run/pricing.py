"""What a recipe costs on this machine, and its features on published GPUs: for the plan.

In: a recipe, the rows of its local sources.  Out: JSON facts, rounded to two digits, with what had to be assumed.
Cost: a second, and where the decoder is on this machine and small, loading it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from armorm.data.benchmarks.registry import benchmark
from armorm.data.rows import conversations_of, texts_of
from armorm.data.sources.registry import pair_source, rating_source
from armorm.data.summary import SourceFacts
from armorm.features.backbone import SIZES, blocks_of, device_of, is_ready, load_backbone, located, longest_of
from armorm.features.spec import FINAL
from armorm.fit.gate_choice import MOST_PARTS, STEPS, STRENGTHS
from armorm.fit.gate_settings import GateSettings
from armorm.recipe import Recipe, Source
from armorm.rendering import Renderer
from armorm.run.costs import (
    DECODERS,
    GPUS,
    UTILISATION,
    Count,
    Decoder,
    GateSizes,
    Sizes,
    about,
    decoder_operations,
    gpu_hours,
    gpus_needed,
    work_of,
)
from armorm.run.rates import BATCH, decoder_seconds, machine_rates, product_rate
from armorm.run.rows import all_here

SAMPLE = 16
"""Rows of each source whose tokens are counted."""
PROMPT, ANSWER = 250, 250
"""Tokens, where no row is here to be counted."""
PADDING = 90
"""Tokens that a padded copy has more than its answer, about."""
LETTERS = 4
"""Per token, where the tokenizer is not here."""
WIDTH = DECODERS[0].width
LOADED = 1_000_000_000
"""Bytes of weights up to which a decoder is loaded to be timed."""
LENGTH = 128
"""Tokens of the conversations that it is timed on, where it takes so many."""
Amount = tuple[int, int, float]
"""Rows, their answers, their tokens."""


def price(recipe: Recipe, found: Sequence[SourceFacts], renderer: Renderer | None) -> dict[str, Any]:
    """Seconds, disk and memory by stage on this machine, hours of GPUs for decoders of two sizes, and what was assumed."""
    assumed: list[str] = []
    decoder = _decoder(recipe, assumed)
    sizes = _sizes(recipe, found, renderer, decoder.width if decoder else WIDTH, assumed)
    rates = machine_rates()
    if decoder is not None:
        rates["decoder"] = _decoder_rate(recipe, decoder, assumed)
    stages = [
        {
            "stage": work.stage,
            "seconds": None if (seconds := work.seconds(rates)) is None else about(seconds),
            "disk": about(work.disk),
            "memory": None if work.memory is None else about(work.memory),
        }
        for work in work_of(sizes, decoder)
    ]
    gpus = [
        {"decoder": d.name, "gpu": g.name, "hours": about(gpu_hours(d, g, sizes)), "needed": gpus_needed(d, g)}
        for d in DECODERS
        for g in GPUS
    ]
    rows = {"rated": sizes.rated, "pairs": sizes.pairs, "answers": sizes.answers, "tokens": about(sizes.tokens)}
    told = {name: about(rate) for name, rate in rates.items()}
    return {**rows, "rates": told, "stages": stages, "gpus": gpus, "utilisation": UTILISATION, "assumed": assumed}


# -- sizes --------------------------------------------------------------------------------------------------------------------


def _sizes(recipe: Recipe, found: Sequence[SourceFacts], renderer: Renderer | None, d: int, assumed: list[str]) -> Sizes:
    away, features, gate = _away(recipe, assumed), recipe.features, recipe.gate
    by_kind = {kind: [*(_counted(f, renderer, recipe) for f in found if f.kind == kind), *away[kind]] for kind in away}
    rated, pairs, items = (_sum(by_kind[kind]) for kind in ("ratings", "pairs", "bench"))
    if found and renderer is None:
        assumed.append(f"{LETTERS} letters a token: the tokenizer is not at hand")
    answers, tokens = rated[1] + pairs[1] + items[1], rated[2] + pairs[2] + items[2]
    padded = min(recipe.debias.padded or 0, round((1 - recipe.splits.validation - recipe.splits.test) * (rated[1] + pairs[1])))
    length = tokens / answers if answers else 0.0
    tokens += padded * (length + PADDING)  # the prompt runs once more, the answer as it is does not
    response, prompt = features.parts
    return Sizes(
        rated=rated[0],
        pairs=pairs[0],
        benched=items[1],
        benched_prompts=items[0],
        tokens=tokens,
        length=tokens / (answers + padded) if answers else 0.0,
        stored_answer=len(response) * d,
        stored_prompt=len(prompt) * d,
        bytes_each=SIZES[features.store_dtype],
        width=max(len(spec.parts) for spec in features.candidates) * d,
        prompt=len(features.prompt_spec.parts) * d,
        candidates=len(features.candidates),
        objectives=(k := len(recipe.load_objectives())),
        patterns=min(max(len(by_kind["ratings"]), 1), k),
        folds=recipe.probe.folds,
        strengths=len(recipe.probe.alphas),
        validation=recipe.splits.validation,
        padded=padded,
        gate=GateSizes(
            gate.hidden, gate.hidden_layers, gate.steps, gate.batch_size, _trainings(gate), gate.steps // gate.evaluate_every
        ),
        left_out=len(by_kind["pairs"]) if recipe.unseen_sources else 0,
    )


def _trainings(gate: GateSettings) -> Count:
    # Gates that are trained, for debiased and raw rewards each; the strength is chosen once for both
    if gate.kl != "auto":
        return 0 if gate.kl == "inf" else gate.seeds
    return gate.seeds + MOST_PARTS * (len(STRENGTHS) - 1) * min(gate.steps, STEPS) / gate.steps / 2


def _sum(amounts: Sequence[Amount]) -> Amount:
    return sum(a[0] for a in amounts), sum(a[1] for a in amounts), float(sum(a[2] for a in amounts))


def _counted(facts: SourceFacts, renderer: Renderer | None, recipe: Recipe) -> Amount:
    # Tokens and answers of some rows, evenly drawn, stand for all. Of what is made every other answer is there already.
    rows, step = len(facts.rows), max(len(facts.rows) // SAMPLE, 1)
    drawn = [facts.rows[i] for i in range(0, rows, step)][:SAMPLE]
    if not drawn:
        return 0, 0, 0.0
    answers = sum(len(texts_of(row)[1]) for row in drawn)
    tokens = sum(_tokens(row, renderer) for row in drawn)
    new = 0.5 if any(entry.rows == facts.kind and facts.name in entry.names for entry in recipe.made) else 1.0
    return rows, round(rows * answers / len(drawn)), new * rows * tokens / len(drawn)


def _tokens(row: Any, renderer: Renderer | None) -> float:
    # A prompt that answers share runs once.
    if renderer is not None:
        rendered = [renderer.render(conversation) for conversation in conversations_of(row)]
        return float(sum(map(len, rendered)) - sum(len(one.prompt) for one in rendered[1:]))
    context, answers = texts_of(row)
    return len(str(context) + "".join(map(str, answers))) / LETTERS


def _away(recipe: Recipe, assumed: list[str]) -> dict[str, list[Amount]]:
    # What the catalogue says of sources that are not on this machine.
    ratings = [_published(source, lambda name: rating_source(name).rows, 1) for source in recipe.ratings if _is_away(source)]
    pairs = [_published(source, lambda name: pair_source(name).rows, 2) for source in recipe.pairs if _is_away(source)]
    bench = [
        _amount(min(benchmark(suite.benchmark).rows, suite.cap or 10**12), 2)
        for suite in recipe.bench
        if suite.benchmark is not None and suite.path is None
    ]
    others = [suite.source for suite in recipe.bench if suite.source is not None and _is_away(suite.source)]
    bench += [_published(source, lambda name: pair_source(name).rows, 2) for source in others]
    counted = {"ratings": ratings, "pairs": pairs, "bench": bench}
    for entry in recipe.made if not all_here(recipe) else ():
        counted[entry.rows] += [_amount(entry.cap or 0, 1 if entry.rows == "ratings" else 2)] * len(entry.names)
    if any(counted.values()):
        assumed.append(
            f"rows of sources that are not on this machine: as published, a record a row, {PROMPT} tokens a prompt and "
            f"{ANSWER} an answer"
        )
    if unknown := sum(not amount[0] for amounts in counted.values() for amount in amounts):
        assumed.append(f"{unknown} sources, whose size is not published here, are not counted")
    return counted


def _is_away(source: Source) -> bool:
    return source.path is None and source.builtin is None and not source.made


def _published(source: Source, rows_of: Callable[[str], int], answers: int) -> Amount:
    rows = rows_of(source.source) if source.source is not None else 0
    return _amount(min(rows, source.cap or rows), answers)


def _amount(rows: int, answers: int) -> Amount:
    return rows, rows * answers, float(rows * (PROMPT + answers * ANSWER))


# -- the decoder ----------------------------------------------------------------------------------------------------------------


def _decoder(recipe: Recipe, assumed: list[str]) -> Decoder | None:
    # By its config, where that is on this machine; cut behind the deepest layer that is read.
    settings = recipe.backbone
    if recipe.features.engine == "vllm":
        assumed.append("features take what this package's own engine takes: vLLM is not timed")
    if not is_ready(settings.model, settings.dtype):
        assumed.append(f"{settings.model} is converted when it is first used: {WIDTH:,} wide, its features are not timed before")
        return None
    folder = located(settings.model, settings.dtype)
    if not Path(folder).is_dir():
        assumed.append(f"{settings.model} is not on this machine: {WIDTH:,} wide, its features are not timed here")
        return None
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config, trust_remote_code=False)
    text = config.get_text_config()
    weights = sum(p.numel() for p in blocks_of(model).parameters())
    others = sum(p.numel() for p in model.parameters()) - weights
    if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        assumed.append("all experts of the decoder run over every token: a few do, so that its features take less")
    parts = [part for side in recipe.features.parts for part in side]
    deepest = text.num_hidden_layers if any(p.layer == FINAL for p in parts) else max(int(p.layer) for p in parts)
    share = deepest / text.num_hidden_layers
    each = 4 if settings.dtype == "float32" else 2
    return Decoder(settings.model, round(weights * share), deepest, text.hidden_size, each, others)


def _decoder_rate(recipe: Recipe, decoder: Decoder, assumed: list[str]) -> float:
    settings, device = recipe.backbone, device_of(recipe.backbone.device)
    if decoder.bytes > LOADED:
        assumed.append(
            f"{UTILISATION:.0%} of the rate of products of matrices: the decoder is too large to be loaded for a trial"
        )
        return UTILISATION * product_rate(getattr(torch, settings.dtype), device)
    backbone = load_backbone(settings.model, device=settings.device, dtype=settings.dtype)
    backbone.cut([part for side in recipe.features.parts for part in side])
    length = min(LENGTH, longest_of(backbone.model.config, settings.max_tokens), longest_of(backbone.model.config, None))
    return decoder_operations(decoder, BATCH * length, length) / decoder_seconds(backbone, length)
