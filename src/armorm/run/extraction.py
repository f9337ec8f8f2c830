"""The features stage: every source of a recipe through the backbone, or found on disk.

In: a recipe and its rows.  Out: `Stores`, one per source.  Cost: one pass of the decoder over what is not there yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from armorm.features.answers import Answers
from armorm.features.backbone import Backbone, check_positions, fingerprint, load_backbone, load_tokenizer
from armorm.features.storing import ExtractionSettings, Known, OnProgress, Row, store_answers
from armorm.progress import Advance, Reporter
from armorm.recipe import BackboneSettings, Recipe
from armorm.rendering import Renderer
from armorm.run.rows import Rows
from armorm.small_files import expanded


@dataclass(frozen=True)
class Stores:
    """A store per source, by kind of rows."""

    ratings: dict[str, Answers]
    pairs: dict[str, Answers]
    suites: dict[str, Answers]

    @property
    def all(self) -> list[Answers]:
        return [*self.ratings.values(), *self.pairs.values(), *self.suites.values()]

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


def extract_all(recipe: Recipe, rows: Rows, folder: Path, backbone: LazyBackbone, reporter: Reporter) -> Stores:
    """Features of every source, each extracted once per backbone, settings and texts."""
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
        with reporter.bar(f"features of {name}", len(found)) as advance:
            stored = store_answers(folder, name, found, backbone, settings, known=known, progress=_with_rate(advance))
        known.add(stored, found)
        return stored

    return Stores(*({name: store(name, found) for name, found in sources.items()} for sources in rows.kinds.values()))


def _with_rate(advance: Advance) -> OnProgress:
    first: tuple[float, int] | None = None  # when, and what an earlier run had done by then

    def progress(done: int, _total: int, tokens: int) -> None:
        nonlocal first
        now = time.perf_counter()
        start, before = first = first or (now, tokens)
        advance(done, f"{(tokens - before) / (now - start):,.0f} tokens/s" if now - start > 1 else "")

    return progress
