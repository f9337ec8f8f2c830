"""What a benchmark is worth to a model: the types of its results.json.

In: figures with 95 % intervals by prompt.  Out: `BenchResults`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ConfigDict

from armorm.bench.aggregate import Figures
from armorm.bench.metrics import LengthCorrelation
from armorm.bench.position import PositionBias
from armorm.bench.profiles import ProfileRow
from armorm.bench.published import PublishedRow
from armorm.results import Provenance
from armorm.scoring.profile import Profile


class SteeredFacts(Profile):
    """A steering profile, and what it costs and brings."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    figures: Figures
    """All figures under the profile."""
    comparison: tuple[ProfileRow, ...]
    """The figures beside those without it."""


class BenchResults(Provenance):
    """Everything that a benchmark found."""

    format: int
    """The number of the file's format."""
    model: str
    """The model's folder or hub id."""
    suite: str
    """The suite's name."""
    title: str
    """Its name for people."""
    rule: str
    """How scores become right and wrong."""
    items: int
    """Items that were judged."""
    answers: int
    """Their answers."""
    prompts: int
    """Their prompts."""
    published_items: int | None
    """How many items the benchmark has as published; null for a file of one's own."""
    left_out: Mapping[str, int]
    """By reason, items that were left out, and those that are unscored because the model can't read an answer of theirs."""
    fault_examples: tuple[str, ...]
    """The first faulty items."""
    max_tokens: int
    """The most tokens that a conversation keeps."""
    asked: int
    """Conversations that the model was asked to score; for a model that compares two answers, comparisons."""
    truncated: int
    """Those of them that did not fit and were cut."""
    notes: Mapping[str, int]
    """By what the chat template left out or could not keep apart, how many of them."""
    figures: Figures
    """Subsets and aggregates."""
    length: LengthCorrelation
    """How far scores follow the answers' length."""
    published: tuple[PublishedRow, ...]
    """What is published."""
    position: PositionBias | None = None
    """How much verdicts follow the order of the answers, for models that compare two."""
    profile: SteeredFacts | None = None
    """What a steering profile does, where one was given."""
    seconds: float
    """How long scoring took."""
    folder: str = ""
    """Where the files were written; not in the files themselves."""
