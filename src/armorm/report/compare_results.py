"""What a comparison of methods finds: the types of its results.json.

In: the contenders' facts.  Out: `CompareResults`.
"""

from __future__ import annotations

from collections.abc import Mapping

from armorm.bench.metrics import PairedDifference
from armorm.bench.position import PositionBias
from armorm.bench.published import PublishedRow
from armorm.report.run_results import Decoder, OnSuite, SuiteFacts
from armorm.results import Estimate, Provenance, Result


class ComparedRow(OnSuite):
    """What one method is worth on a suite, beside the references."""

    versus: Mapping[str, PairedDifference | None]
    """By reference, the paired difference from it; null for itself."""


class ComparedSuite(SuiteFacts):
    """The methods on one suite."""

    title: str
    """Its name for people."""
    whole: bool = False
    """Whether it holds all items, beside a table of fewer."""
    of: int
    """Items that there are."""
    sections: tuple[str, ...]
    """The sections that some method has."""
    missing: tuple[str, ...]
    """Subsets of the official aggregate that have no scored item: not in these files, beyond the limit, or left out."""
    methods: tuple[ComparedRow, ...]
    """What each method is worth."""
    published: tuple[PublishedRow, ...]
    """What is published."""


class TrainingCost(Result):
    """What making a method took."""

    seconds: float | None
    """Time."""
    tokens: int | float | None
    """Tokens that were read."""
    steps: int | None
    """Steps of training a decoder."""
    examples: int | float | None
    """Rows that were learnt from."""


class ScoringCost(Result):
    """What scoring a suite took."""

    seconds: float | None
    """Time; null where an earlier run did a part."""
    tokens_in: int | None
    """Tokens that were read."""
    tokens_out: int | None
    """Tokens that were written."""
    answers: int
    """Answers that were scored."""


class Usage(Result):
    """What asking a judge took."""

    requests: int
    """Requests that were sent."""
    from_cache: int
    """Replies that were there before."""
    failed: int
    """Requests that failed for good."""
    failures: Mapping[str, int]
    """How they failed."""
    refused: Mapping[str, int]
    """Conversations that were not asked about, by reason."""
    unparsable: int
    """Replies without a verdict."""
    cut: int
    """Replies that were cut off."""
    tokens_in: int
    """Tokens that were read."""
    tokens_out: int
    """Tokens that were written."""
    untold: int
    """Replies that did not say how many tokens they took."""
    cached_tokens_in: int
    """Tokens that earlier runs read."""
    cached_tokens_out: int
    """Tokens that earlier runs wrote."""
    cost_usd: float | None
    """Price of this run's requests; null where prices are not known."""
    cached_cost_usd: float | None
    """What was paid before."""
    seconds: float
    """Time spent waiting."""


class MethodFacts(Result):
    """A method, and what it took."""

    method: str
    """Its name."""
    label: str
    """Its name for people."""
    family: str
    """Its kind."""
    backbone: str
    """What it reads the texts with."""
    note: str
    """What else to know of it."""
    training: TrainingCost | None
    """What making it took; null where there is nothing to make."""
    usage: Usage | None
    """What asking it took, for judges behind an endpoint or their like."""
    position: Mapping[str, PositionBias] | None
    """By suite, how much its verdicts follow the order of the answers."""
    skipped: str | None
    """Why it was not run; null where it was."""
    scoring: Mapping[str, ScoringCost]
    """By suite, what scoring took."""


class ProbeOnBackbone(Result):
    """Held-out quality of the probe on one decoder."""

    backbone: str
    """The decoder."""
    feature: str
    """The feature that the probe reads."""
    pearson: Mapping[str, Estimate]
    """By objective, the correlation of predicted and given ratings."""
    n: Mapping[str, int]
    """By objective, the test ratings."""
    mean: Estimate
    """The mean correlation over the objectives."""
    gain: Estimate | None
    """The mean less the first decoder's; null for the first."""


class CompareResults(Provenance):
    """Everything that a comparison found."""

    format: int
    """The number of the file's format."""
    name: str
    """The recipe."""
    seed: int
    """The random seed."""
    backbone: Decoder
    """The language model under the methods on features."""
    references: tuple[str, ...]
    """The methods that the paired tests are against."""
    suites: tuple[ComparedSuite, ...]
    """The methods on every suite."""
    methods: tuple[MethodFacts, ...]
    """Every method, and what it took."""
    probes: tuple[ProbeOnBackbone, ...]
    """The probe on each decoder that was tried on the same rows."""
    notes: tuple[str, ...]
    """What to know of the comparison."""
    seconds: float
    """How long this call took."""
    folder: str = ""
    """Where the files were written; not in the files themselves."""
