"""The features stage: every source of a recipe through the backbone, or found on disk; by one process or by several.

In: a recipe, its rows, which of several workers it is.  Out: `Stores`, one per source; `Extraction`, what is there by now.
Cost: one pass of the decoder over what is not there yet. Each process reads all rows, since stores are named after them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from armorm.features.answers import Answers
from armorm.features.backbone import Backbone, check_positions, fingerprint, load_backbone, load_tokenizer
from armorm.features.storing import Decoder, ExtractionSettings, Known, OnProgress, Row, store_answers, write_style
from armorm.features.vllm_engine import VllmBackbone, fingerprint_on_vllm, load_on_vllm
from armorm.features.workers import Growing, Worker
from armorm.progress import Advance, Reporter
from armorm.recipe import BackboneSettings, Recipe
from armorm.rendering import Renderer
from armorm.report.extraction import Extraction, Filled
from armorm.run.padded import NAME as PADDED
from armorm.run.padded import padded_pairs
from armorm.run.rows import Rows, read_rows
from armorm.small_files import expanded


@dataclass(frozen=True)
class Stores:
    """A store per source, by kind of rows; `padded` holds reference answers with padded copies, where a recipe asks for them."""

    ratings: dict[str, Answers]
    pairs: dict[str, Answers]
    suites: dict[str, Answers]
    padded: Answers | None = None

    @property
    def all(self) -> list[Answers]:
        padded = () if self.padded is None else (self.padded,)
        return [*self.ratings.values(), *self.pairs.values(), *self.suites.values(), *padded]

    def to_json(self) -> dict[str, Any]:
        tokens, seconds = sum(s.manifest["tokens"] for s in self.all), sum(s.seconds for s in self.all)
        return {
            "tokens": tokens,
            "seconds": round(seconds, 1),
            "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
            "truncated": sum(s.manifest["truncated"] for s in self.all),
        }


class LazyBackbone:
    """The recipe's backbone, loaded when the first stage needs it, cut to the layers that the recipe reads."""

    def __init__(self, settings: BackboneSettings, parts: list[Any], say: Callable[[str], None]) -> None:
        self.settings, self.parts, self.say = settings, parts, say

    @property
    def options(self) -> dict[str, Any]:
        s = self.settings
        return {
            "dtype": s.dtype,
            "revision": s.revision,
            "chat_template": expanded(s.chat_template) if s.chat_template else None,
        }

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.settings.model, **self.options)

    @cached_property
    def renderer(self) -> Renderer:
        """Needs the tokenizer alone."""
        s = self.settings
        return Renderer(load_tokenizer(s.model, **self.options), max_tokens=s.max_tokens, rendering=s.rendering)

    def load(self) -> tuple[Backbone, Renderer]:
        """The backbone and its renderer; the same ones each time."""
        return self._loaded

    @cached_property
    def _loaded(self) -> tuple[Backbone, Renderer]:
        self.say(f"loading {self.settings.model} (a GGUF file is converted the first time, about half a minute)")
        backbone = load_backbone(self.settings.model, device=self.settings.device, **self.options)
        check_positions(backbone.model.config, self.settings.max_tokens)
        backbone.cut(self.parts)
        return backbone, self.renderer  # it knows the contexts already that it checked


class OnVllm:
    """The recipe's backbone in vLLM's hands: started when something has to be computed, and ended by `close`."""

    def __init__(self, own: LazyBackbone) -> None:
        self.own = own
        self._started: VllmBackbone | None = None

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_on_vllm(self.own.fingerprint)

    def load(self) -> tuple[VllmBackbone, Renderer]:
        """The same ones each time. Raises what `load_on_vllm` raises."""
        if self._started is None:
            s = self.own.settings
            self.own.say(f"starting vLLM with {s.model}")
            how: Any = {"dtype": s.dtype, "revision": s.revision, "max_tokens": s.max_tokens}
            self._started = load_on_vllm(s.model, self.own.parts, **how)
        return self._started, self.own.renderer

    def close(self) -> None:
        """Free vLLM's memory, which later stages need."""
        if self._started is not None:
            self._started.close()
            self._started = None


@contextmanager
def engine_of(recipe: Recipe, backbone: LazyBackbone) -> Iterator[Decoder]:
    """Who runs the decoder for this recipe's features, as long as they are computed."""
    if recipe.features.engine == "own":
        yield backbone
        return
    decoder = OnVllm(backbone)
    try:
        yield decoder
    finally:
        decoder.close()


def extract(recipe: Recipe, features: Path, *, worker: Worker | None = None, reporter: Reporter | None = None) -> Extraction:
    """The features stage alone, into the folder that training finds them in.

    With a `worker`, this process computes its shards of every source, whatever other workers do meanwhile; the one that finds
    the last shard of a store there finishes the store. Raises what reading rows and the stores raise.
    """
    reporter, (response, prompt) = reporter or Reporter(), recipe.features.parts
    backbone = LazyBackbone(recipe.backbone, [*response, *prompt], reporter.say)
    reporter.say("reading rows")
    rows = read_rows(recipe, recipe.load_objectives(), reporter, renderer=backbone.renderer)
    stores = extract_all(recipe, rows, features, backbone, reporter, worker=worker)
    kinds = {"ratings": stores.ratings, "pairs": stores.pairs, "bench": stores.suites}
    kinds |= {} if stores.padded is None else {PADDED: {PADDED: stores.padded}}
    filled = [_filled(kind, name, store) for kind, sources in kinds.items() for name, store in sources.items()]
    return Extraction(folder=str(features), shard=str(worker) if worker else None, stores=tuple(filled))


def extract_all(
    recipe: Recipe, rows: Rows, folder: Path, backbone: LazyBackbone, reporter: Reporter, *, worker: Worker | None = None
) -> Stores:
    """Features of every source, each extracted once per backbone, settings and texts, and of padded copies of some answers.

    With a `worker`, a store is `Growing` as long as others' shards of it are missing.
    """
    with engine_of(recipe, backbone) as decoder:
        return _extract_all(recipe, rows, folder, backbone, decoder, reporter, worker)


def _extract_all(
    recipe: Recipe,
    rows: Rows,
    folder: Path,
    backbone: LazyBackbone,
    decoder: Decoder,
    reporter: Reporter,
    worker: Worker | None,
) -> Stores:
    features, known = recipe.features, Known()
    settings = ExtractionSettings(
        *features.parts,
        max_tokens=recipe.backbone.max_tokens,
        rendering=recipe.backbone.rendering,
        store_dtype=features.store_dtype,
        shard_rows=features.shard_rows,
        batch_tokens=features.batch_tokens,
    )

    def store(name: str, found: Sequence[Row]) -> Answers:
        own = worker.rows(len(found), settings.shard_rows) if worker else len(found)
        with reporter.bar(f"features of {name}", own) as advance:
            how: Any = {"worker": worker, "known": known, "progress": _with_rate(advance)}
            stored = store_answers(folder, name, found, decoder, settings, **how)
        known.add(stored, found)
        if recipe.debias.styled and worker is None:  # of a store that grows, once it is whole
            write_style(stored, found, backbone.renderer)
        return stored

    ratings, pairs, suites = ({n: store(n, found) for n, found in sources.items()} for sources in rows.kinds.values())
    stores = Stores(ratings, pairs, suites)
    return replace(stores, padded=store(PADDED, padded_pairs(recipe, rows))) if recipe.debias.padded else stores


def _filled(kind: str, name: str, store: Answers) -> Filled:
    shards, present = (store.shards, store.present) if isinstance(store, Growing) else (len(store.manifest["shards"]),) * 2
    whole = not isinstance(store, Growing)
    return Filled(kind=kind, name=name, folder=store.folder.name, rows=len(store), shards=shards, present=present, whole=whole)


def _with_rate(advance: Advance) -> OnProgress:
    first: tuple[float, int] | None = None  # when, and what an earlier run had done by then

    def progress(done: int, _total: int, tokens: int) -> None:
        nonlocal first
        now = time.perf_counter()
        start, before = first = first or (now, tokens)
        advance(done, f"{(tokens - before) / (now - start):,.0f} tokens/s" if now - start > 1 else "")

    return progress
