"""What a run leaves: the types of its results.json.

In: the stages' facts.  Out: `RunResults`.
"""

from __future__ import annotations

from collections.abc import Mapping

from armorm.bench.abstention import AbstentionCurve
from armorm.bench.aggregate import Figure, Figures
from armorm.bench.audit import RivalFacts
from armorm.bench.every_section import AllSections
from armorm.bench.metrics import LengthCorrelation, PairedDifference
from armorm.bench.reliability import Reliability
from armorm.data.summary import DataSummary
from armorm.results import Estimate, Number, Provenance, Result


class Decoder(Result):
    """A language model."""

    model: str
    """Its name or folder."""
    dtype: str
    """The type of its numbers."""


class BackboneFacts(Decoder):
    """The language model that was read."""

    layers: int | str
    """How many blocks were read, or "all"."""
    width: int
    """The width of its inner state."""
    tokens: int
    """Tokens that were read."""
    seconds: float
    """How long that took."""
    tokens_per_second: float | None
    """Their ratio; null where no time was taken."""
    truncated: int
    """Conversations that were cut to the longest input."""


class Candidate(Result):
    """A feature that was tried as the probe's input."""

    feature: str
    """Its name."""
    pearson: Number
    """Mean held-out correlation over the objectives."""


class ProbeQuality(Result):
    """One objective's predictions beside its ratings, on test prompts."""

    name: str
    """The objective."""
    n: int
    """Test ratings."""
    pearson: Estimate
    """Pearson's correlation."""
    spearman: Estimate
    """Spearman's correlation."""
    r2: Estimate
    """The share of variance explained, on the raw scale."""
    rmse: Estimate
    """Root mean square error on the raw scale."""
    auc: Estimate | None
    """How often a good answer beats a bad one; null for ratings of more than two values."""
    n_train: int
    """Ratings that were fitted to."""
    n_test: int
    """Test ratings."""
    alpha: float
    """The strength of the ridge regression."""
    rmse_raw: Estimate
    """Root mean square error on the raw scale."""
    warnings: tuple[str, ...]
    """What to know before using these numbers."""


class Coverage(Result):
    """How well one objective's intervals hold."""

    name: str
    """The objective."""
    sigma: Number
    """Noise: how far ratings stray from the reward, on [0, 1]."""
    scale: Number
    """The calibrated noise over that of the fit."""
    inflation: float
    """How much larger the standard error is because ratings of one prompt are not independent."""
    reach: Number
    """How many predictive standard deviations an interval reaches."""
    n: int
    """Ratings that were fitted to."""
    coverage_cross_validated: Estimate
    """Share of training ratings inside intervals that the other folds set."""
    n_test: int
    """Test ratings."""
    coverage: Estimate
    """Share of test ratings inside their interval."""
    mean_std: Number
    """Mean standard error of the reward over test answers."""
    mean_width: Number
    """Mean width of an interval over test answers."""


class UncertaintyPart(Result):
    """Objectives that are rated on the same rows, and what cutting their eigenvectors costs."""

    objectives: tuple[str, ...]
    """The objectives."""
    rank: int
    """Eigenvectors that are kept."""
    error: float
    """Mean relative error of the standard deviations by that."""
    worst: float
    """The largest one."""


class UncertaintyFacts(Result):
    """How sure the probe is, and how often its intervals hold."""

    level: float
    """What the intervals aim at."""
    coverage: Estimate
    """Share of all test ratings inside their interval."""
    n_test: int
    """Test ratings."""
    objectives: tuple[Coverage, ...]
    """The same by objective."""
    parts: tuple[UncertaintyPart, ...]
    """What the saved posterior is made of."""
    bytes: int
    """Its size on disk."""


class ProbeFacts(Result):
    """The probe: which feature it reads, and how good it is."""

    feature: str
    """The feature that was chosen."""
    candidates: tuple[Candidate, ...]
    """The features that were tried."""
    objectives: tuple[ProbeQuality, ...]
    """Quality on test prompts."""
    warnings: tuple[str, ...]
    """What to know before using it."""
    uncertainty: UncertaintyFacts
    """How sure it is."""


class BeforeAfter(Result):
    """A correlation without and with debiasing."""

    before: Number
    """Without."""
    after: Number
    """With."""


class UnderPadding(Result):
    """What padding does to one objective's reward, and what either way to choose λ makes of it."""

    correlation: Mapping[str, float]
    """By nuisance, λ by the correlation."""
    padding: Mapping[str, float]
    """By nuisance, λ by padding."""
    shift: Estimate
    """How far padded copies move the reward on average, in its standard deviations over the reference answers."""
    shift_after: Estimate
    """The same of the debiased reward, in the same unit."""


class Debiased(Result):
    """One objective's debiasing."""

    name: str
    """The objective."""
    coefficients: Mapping[str, float]
    """By nuisance, how much of it is subtracted."""
    reference: Mapping[str, BeforeAfter]
    """By nuisance, the correlation with it on the reference answers."""
    held_out: Mapping[str, BeforeAfter]
    """The same on held-out prompts' answers."""
    padding: UnderPadding | None = None
    """What padding does; null where no answer was padded."""


class ReferenceFacts(Result):
    """The answers on which the debiasing is fitted."""

    sources: tuple[str, ...]
    """Where they are from."""
    n: int
    """How many there are."""


class LargestByChance(Result):
    """The largest correlation of any debiased reward, sign aside, where there is none but chance's."""

    mean: Number
    """On average."""
    high: Number
    """No larger in 95 of 100 cases."""


class HeldOutFacts(Result):
    """The answers on which it is tested."""

    n: int
    """How many there are."""
    chance: Mapping[str, LargestByChance] = {}
    """By nuisance, what chance gives on so many answers."""


class PaddedCopies(Result):
    """The padded copies of reference answers."""

    n: int
    """How many were read."""
    prompts: int
    """How many prompts they are to."""
    left_out: Mapping[str, int]
    """How many of those that were asked for are not among them, by reason."""
    moved: Mapping[str, float]
    """By nuisance, how much padding adds to it on average."""


class DebiasFacts(Result):
    """The debiasing."""

    method: str
    """What λ is chosen by: which correlation becomes zero, padding, or where both agree."""
    nuisances: tuple[str, ...]
    """What rewards shall not follow."""
    itself: str
    """What becomes of a nuisance that is an objective: "kept" or "zeroed"."""
    reference: ReferenceFacts
    """The answers on which it is fitted."""
    held_out: HeldOutFacts
    """The answers on which it is tested."""
    objectives: tuple[Debiased, ...]
    """Each objective's part."""
    warnings: tuple[str, ...]
    """What to know before using it."""
    over: str = "pooled"
    """What was correlated: all answers, or the differences between answers to the same prompt."""
    padding: PaddedCopies | None = None
    """The padded copies; null where there are none."""


class GateCurve(Result):
    """One gate's training."""

    seed: int
    """Its random seed."""
    steps: tuple[int, ...]
    """The steps at which the rest was taken."""
    train_loss: tuple[Number, ...]
    """Loss on training pairs."""
    validation_loss: tuple[Number, ...]
    """Loss on validation pairs."""
    validation_accuracy: tuple[Number, ...]
    """Share of validation pairs ranked right."""
    beta: tuple[Number, ...]
    """The scale of the score."""


class Spread(Result):
    """A number over the seeds."""

    mean: Number
    """Its mean."""
    std: Number
    """Its standard deviation; null with one seed."""
    values: tuple[float, ...]
    """The seeds' numbers."""


class GateSpread(Result):
    """How much the gates of several seeds differ."""

    validation_accuracy: Spread
    """Share of validation pairs ranked right."""


class LeftOut(Result):
    """A part of the pairs that was left out."""

    name: str
    """Its sources, or the number of a cluster of prompts."""
    n: int
    """Its pairs."""


class StrengthTried(Result):
    """One strength of the gate's penalty, tried on parts that it had not seen."""

    kl: str
    """The strength; "inf": no gate."""
    loss: tuple[Number, ...]
    """Log-loss on each part, at the part's own best scale."""
    accuracy: tuple[Number, ...]
    """Share of each part's pairs ranked right."""
    excess: Number
    """By how much the mean loss is above that of the best strength."""
    error: Number
    """The standard error of this over the parts."""


class GateGain(Result):
    """The best gate beside one weight vector, on parts that neither had seen."""

    loss: Number
    """By how much the gate's mean loss is lower."""
    error: Number
    """The standard error of this over the parts."""
    accuracy: Number
    """By how much its mean accuracy is higher."""


class GateChoice(Result):
    """How strongly the gate is held to one weight vector, chosen by leaving out parts of the pairs."""

    kind: str
    """What was left out: "sources", or "clusters" of prompts."""
    parts: tuple[LeftOut, ...]
    """The parts; none where there were too few pairs."""
    steps: int
    """At most so many steps in a training for the choice."""
    strengths: tuple[StrengthTried, ...]
    """What was tried, from no penalty to no gate."""
    best: str
    """The strength of the least mean loss."""
    chosen: str
    """The strongest one that is within one standard error of it."""
    gain: GateGain | None
    """Whether a gate is worth having; null where nothing was tried."""


class GateFacts(Result):
    """The gate."""

    curves: tuple[GateCurve, ...]
    """Its training, seed by seed."""
    chosen_seed: int | None
    """The seed that was kept; null where all were, or none was trained."""
    best_step: int | None
    """The step that was kept; null there too."""
    scale: float
    """The scale β with which it was trained."""
    spread: GateSpread
    """How much the seeds differ."""
    by_source: Mapping[str, Mapping[str, float]]
    """Mean weight of each objective by section or source."""
    single: str
    """The best single objective."""
    start: str = "random"
    """What it gave before its first step: by random weights, or by the best weights that no prompt changes."""
    kl: str = "0"
    """How strongly it was held to those weights; "inf": it is them."""
    kl_elsewhere: Number = 0.0
    """How strongly it was held to them on prompts without pairs."""
    kl_equal: Number = 0.0
    """How strongly those weights were held to equal ones."""
    combined: int = 1
    """Of how many seeds' gates it is the mean."""
    choice: GateChoice | None = None
    """How the strength was chosen; null where it was given."""


class PreferredFacts(Result):
    """A linear Bradley–Terry head as one more objective."""

    strength: Number
    """The regularisation that held-out pairs chose (scikit-learn's C)."""
    pairs: int
    """The pairs it was fitted to."""
    scale: Number
    """What log-odds are multiplied by to be rewards."""


class PreferenceFacts(Result):
    """P(right): how a margin becomes a probability."""

    form: str | None
    """The curve, "logistic" or "isotonic"; null where none could be fitted."""
    pairs: int
    """The validation pairs to which it is fitted."""
    prompts: int
    """Their prompts."""
    slope: Number
    """Of the logistic curve, in log-odds per unit of the score; null for another."""
    most: Number
    """The highest probability that it gives."""
    log_loss: Mapping[str, Number]
    """By curve that was tried, the mean log-loss on validation prompts that the fit did not see, in nats."""
    reason: str
    """Why there is none; empty where there is one."""
    warnings: tuple[str, ...]
    """What to know before using it."""


class OnSuite(Result):
    """What one method is worth on a suite."""

    method: str
    """Its name."""
    overall: Figure
    """The official aggregate's overall figure."""
    sections: Mapping[str, Figure]
    """The official aggregate's sections."""


class MethodOnSuite(OnSuite):
    """What one method is worth on a suite, beside Bradley–Terry."""

    label: str
    """Its name for people."""
    missing: tuple[str, ...]
    """Subsets that the official aggregate lacks here."""
    figures: Figures
    """All subsets and aggregates."""
    versus_bradley_terry: PairedDifference | None
    """The paired difference from Bradley–Terry; null for itself."""


class SuiteFacts(Result):
    """Items that methods are tried on."""

    name: str
    """Its name."""
    n: int
    """Its items, as many as were judged."""
    groups: int
    """Its prompts."""
    rule: str
    """How scores become right and wrong."""


class SuiteResults(SuiteFacts):
    """Every method on one suite."""

    methods: tuple[MethodOnSuite, ...]
    """The method of the run first, then its ablations and rivals."""


class LengthOnSuite(LengthCorrelation):
    """How far one method's score follows the answer's length on a suite."""

    suite: str
    """The suite."""
    method: str
    """The method."""


class SuiteAbstention(AbstentionCurve):
    """Errors on a suite when close calls are left open."""

    suite: str
    """The suite."""


class SuiteReliability(Reliability):
    """How far P(right) holds on a suite."""

    suite: str
    """The suite."""


class Ablation(Result):
    """The same number with the stage responsible taken away."""

    what: str
    """What is taken away."""
    value: Number
    """The number then."""


class PlantedRow(Result):
    """One planted truth, and what came out."""

    what: str
    """What was planted."""
    aim: str | None
    """What must come out; null where nothing must."""
    value: Number
    """What came out."""
    met: bool | None
    """Whether it did; null without an aim."""
    ablation: Ablation | None
    """What comes out without the stage responsible."""


class PlantedFacts(Result):
    """The planted truth of the starter set."""

    rows: tuple[PlantedRow, ...]
    """Its rows."""


class ExampleTerm(Result):
    """One term of an answer's score."""

    term: str
    """The objective or computed nuisance."""
    reward: float
    """Its value, on [0, 1] for objectives."""
    raw: Number
    """The same on the rating's own scale; null for nuisances."""
    gate: Number
    """The gate's weight; null for nuisances."""
    coefficient: float
    """What the value is multiplied with after debiasing."""
    contribution: float
    """The product."""


class ExampleAnswer(Result):
    """An answer and its score, taken apart."""

    text: str
    """The answer, shortened."""
    label: str
    """Chosen or rejected."""
    score: float
    """Its score."""
    terms: tuple[ExampleTerm, ...]
    """What the score is the sum of."""


class WorkedExample(Result):
    """A pair, scored."""

    section: str
    """Its section."""
    prompt: str
    """The prompt, shortened."""
    answers: tuple[ExampleAnswer, ...]
    """Its answers, chosen first."""


class RunResults(Provenance):
    """Everything that a run found out."""

    format: int
    """The number of the file's format."""
    name: str
    """The recipe."""
    seconds: Mapping[str, float]
    """How long each stage took."""
    backbone: BackboneFacts
    """The language model that was read."""
    data: DataSummary
    """What the data hold."""
    faults: tuple[str, ...]
    """The first faulty rows."""
    probe: ProbeFacts
    """The probe."""
    debias: DebiasFacts | None
    """The debiasing; null where there is none."""
    preferred: PreferredFacts | None = None
    """The objective that was learnt from the pairs; null where none was."""
    gate: GateFacts
    """The gate."""
    preference: PreferenceFacts | None = None
    """P(right); not in the files of earlier versions."""
    suites: tuple[SuiteResults, ...]
    """Every method on every suite."""
    all_sections: AllSections | None = None
    """Every method over all sections of all suites, each counting alike."""
    length: tuple[LengthOnSuite, ...]
    """How far each score follows length."""
    abstention: tuple[SuiteAbstention, ...]
    """Errors when close calls are left open."""
    reliability: tuple[SuiteReliability, ...] = ()
    """How far P(right) holds, suite by suite; empty without a calibration."""
    gate_by_section: Mapping[str, Mapping[str, float]]
    """Mean weight of each objective by suite and section."""
    bradley_terry: RivalFacts
    """The Bradley–Terry rival."""
    planted: PlantedFacts | None
    """The planted truth, where it is known."""
    examples: tuple[WorkedExample, ...]
    """Pairs, scored."""
    warnings: tuple[str, ...]
    """What to read before using these numbers."""

    def labels(self) -> dict[str, str]:
        """The methods' names for people."""
        return {one.method: one.label for suite in self.suites for one in suite.methods}
