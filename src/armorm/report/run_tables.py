"""A run's results as tables and sentences.

In: `RunResults`.  Out: a `Report`: data, probe, uncertainty, debiasing, every suite, length, close calls, the planted truth.
Cost: none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from armorm.numbers import (
    count,
    counts,
    decimal,
    duration,
    equals_p,
    general,
    percent,
    points,
    share,
    share_ends,
    signed,
    signed_hundredths,
)
from armorm.report.run_results import (
    DebiasFacts,
    MethodOnSuite,
    PlantedRow,
    RunResults,
    SuiteAbstention,
    SuiteResults,
    UncertaintyFacts,
)
from armorm.report.tables import Block, Cell, Grid, Report, Row, difference, estimate, grid, has_value, share_of

TERMINAL = ("probe", "debias", "suite", "planted")
"""Tables that the terminal shows, by the first word of their names."""

_SETTLED = 0.05
_WHOLE = "all"
_SUITE = (
    "Accuracy in %, with 95 % intervals that resample whole prompts, since answers to one prompt are not independent. On pairs "
    "without "
    "an official script a tie counts half; on a published benchmark it counts as its script has it, and “ties as halves” says "
    "what "
    "half would give. The test against Bradley–Terry compares both methods pair by pair. ρ(length): rank correlation of score "
    "and length among answers to one prompt."
)


def run_report(results: RunResults) -> Report:
    """Everything that a run found, in tables."""
    grids = [_sources(results), _objectives(results), _candidates(results), _probe(results)]
    grids.append(uncertainty_grid(results.probe.uncertainty))
    if results.debias is not None:
        grids.append(_debias(results.debias))
    grids += [_suite(suite, results) for suite in results.suites]
    grids.append(_length(results))
    grids += [abstention_grid(one) for one in results.abstention if one.n]
    if results.planted is not None:
        grids.append(_planted(results.planted.rows))
    verdicts = ((suite.name, verdict(suite)) for suite in results.suites)
    sentences = [f"{name}: {said}" for name, said in verdicts if said]
    return Report(results.name, _facts(results), sentences, grids=grids, notes=results.warnings)


def terminal_grids(report: Report) -> list[Grid]:
    """What the terminal shows of it."""
    return [one for one in report.grids if one.name.split(" ")[0] in TERMINAL]


def subject(methods: Sequence[str]) -> int:
    """The method that the report is about: the first whose name holds "armorm", else the first."""
    return next((place for place, name in enumerate(methods) if "armorm" in name.lower()), 0)


def verdict(suite: SuiteResults) -> str | None:
    """One or two sentences on a suite, made of its numbers alone; None without a scored method."""
    methods = [one for one in suite.methods if math.isfinite(one.overall.value)]
    if not methods:
        return None
    one = methods[subject([m.method for m in methods])]
    overall = one.overall
    text = (
        f"{one.label} ranks {percent(overall.value)} of {count(overall.n)} pairs right "
        f"(95 % interval {share_ends(overall.interval)})"
    )
    if overall.low <= 0.5:
        text += ", which is not above chance"
    text += _against_bradley_terry(one)
    best = max(methods, key=lambda other: other.overall.value)
    if best.overall.value > overall.value:
        return f"{text} The highest in this table is {best.label} with {percent(best.overall.value)}."
    return f"{text} It is the highest of the {len(methods)} methods." if len(methods) > 1 else text


def _against_bradley_terry(one: MethodOnSuite) -> str:
    versus = one.versus_bradley_terry
    if versus is None or not has_value(versus.difference):
        return "."
    gap, p = versus.difference, versus.p
    numbers = f"{points(gap.value)} points (interval {points(gap.low)} to {points(gap.high)}, p {equals_p(p)})"
    by_test, by_interval = p < _SETTLED, gap.low > 0 or gap.high < 0
    if by_test != by_interval:
        return f". The difference from Bradley–Terry, {numbers}, is at the edge of what this many pairs can show."
    if not by_test:
        return f". The difference from Bradley–Terry, {numbers}, is within what chance gives on this many pairs."
    side = "above" if gap.value > 0 else "below"
    return f", {side} Bradley–Terry by more than chance explains: {numbers}."


def _facts(results: RunResults) -> dict[str, str]:
    backbone = results.backbone
    per_second = "" if backbone.tokens_per_second is None else f" at {count(backbone.tokens_per_second)} tokens/s"
    return {
        "command": results.command,
        "commit": results.commit or "",
        "machine": results.machine,
        "created": results.created,
        "backbone": f"{backbone.model}, {backbone.dtype}, width {count(backbone.width)}, blocks read: {backbone.layers}",
        "features": f"{count(backbone.tokens)} tokens{per_second}, {count(backbone.truncated)} rows truncated",
        "time": ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in results.seconds.items()),
    }


def _sources(results: RunResults) -> Grid:
    data = results.data
    rows = [[s.name, s.kind, *map(count, (s.rows, s.kept, s.groups, s.truncated)), counts(s.drops)] for s in data.sources]
    splits = "; ".join(f"{kind}: {counts(parts)}" for kind, parts in data.splits.items())
    head = ("source", "kind", "rows", "kept", "prompts", "truncated", "left out")
    lead = (
        "What was read, what was kept, and why the rest was dropped. A prompt stands for all rows that share a first question; "
        "splits never cut through one."
    )
    return grid("sources", "Data", head, rows, lead=lead, remarks=[f"Splits by prompt: {splits}."], words=(0, 1, 6))


def _objectives(results: RunResults) -> Grid:
    rows = [
        [o.name, o.rater or "–", f"{general(o.min)} to {general(o.max)}", count(o.n), decimal(o.mean, 2)]
        for o in results.data.objectives
    ]
    lead = (
        "An objective is one named quality that somebody rated on a scale. Ratings are mapped to 0…1 before anything is fitted."
    )
    head = ("objective", "rated by", "scale", "ratings", "mean")
    return grid("objectives", "Objectives", head, rows, lead=lead, words=(0, 1), detail=True)


def _candidates(results: RunResults) -> Grid:
    rows = [[one.feature, decimal(one.pearson)] for one in results.probe.candidates]
    lead = (
        "The inner states that were tried as the probe's input, by mean Pearson correlation on the rows set aside for this "
        f"choice. Chosen: {results.probe.feature}."
    )
    return grid("candidates", "Candidate features", ("feature", "mean held-out Pearson"), rows, lead=lead)


def _probe(results: RunResults) -> Grid:
    rows: list[Row] = [
        [
            Cell(o.name, " ".join(o.warnings)),
            count(o.n_train),
            count(o.n_test),
            general(o.alpha),
            *(estimate(one) for one in (o.pearson, o.spearman, o.r2, o.rmse_raw, o.auc)),
        ]
        for o in results.probe.objectives
    ]
    head = ("objective", "n train", "n test", "alpha", "Pearson", "Spearman", "R²", "RMSE (raw)", "AUC")
    tried = ", ".join(f"{c.feature} {decimal(c.pearson)}" for c in results.probe.candidates)
    lead = (
        "A probe is one linear map per objective from the language model's inner state to the rating. It reads the feature "
        f"{results.probe.feature} (mean held-out Pearson by feature: {tried}). The numbers are on test prompts, which chose "
        "nothing, with 95 % intervals by prompt."
    )
    return grid("probe", "Probe", head, rows, lead=lead)


def uncertainty_grid(part: UncertaintyFacts) -> Grid:
    """What each objective's intervals are made of, and how often they hold."""
    rows: list[Row] = [
        [
            o.name,
            *(decimal(x) for x in (o.sigma, o.mean_std)),
            *(decimal(x, 2) for x in (o.inflation, o.reach, o.mean_width)),
            count(o.n_test),
            share_of(o.coverage),
            share_of(o.coverage_cross_validated),
        ]
        for o in part.objectives
    ]
    head = (
        *("objective", "noise σ", "standard error", "prompts' factor", "reach", "width", "test ratings"),
        *(Cell("inside, test", "%"), Cell("inside, folds", "%")),
    )
    lead = (
        "The probe is a ridge regression, so how sure it is of its weights follows from its data. An interval says where a new "
        "rating "
        f"lies {round(100 * part.level)} times in 100; its reach was set on training prompts, each predicted by a probe that had "
        "not "
        f"seen it. On test prompts, {percent(part.coverage.value)} of {count(part.n_test)} ratings lie inside (95 % interval: "
        f"{share_ends(part.coverage)})."
    )
    note = (
        "All on the [0, 1] scale. Noise: how far ratings stray from the reward. Standard error: how far the reward itself may be "
        "off, on average over test answers. Prompts' factor: how much larger that is because ratings of one prompt are not "
        "independent. "
        "Reach: in standard deviations; 1.96 if ratings were Gaussian. Width: of the interval, cut off at the scale's ends; near "
        "1 it says next to nothing about a single rating."
    )
    return grid("uncertainty", "Uncertainty", head, rows, lead=lead, remarks=[note])


def _debias(debias: DebiasFacts) -> Grid:
    rows = [
        [
            o.name,
            nuisance,
            signed(coefficient),
            *(signed(x) for x in (o.reference[nuisance].before, o.reference[nuisance].after)),
            *(signed(x) for x in (o.held_out[nuisance].before, o.held_out[nuisance].after)),
        ]
        for o in debias.objectives
        for nuisance, coefficient in o.coefficients.items()
    ]
    head = ("objective", "nuisance", "λ", "reference before", "reference after", "held out before", "held out after")
    lead = (
        "Debiasing subtracts from every reward the part that follows a nuisance such as length, so that the two no longer "
        "correlate on "
        f"the reference answers. Correlation: {debias.method}; the nuisance's own objective is {debias.itself}; reference: "
        f"{count(debias.reference.n)} answers of {', '.join(debias.reference.sources)}."
    )
    return grid("debias", "Debiasing", head, rows, lead=lead, words=(0, 1))


def _suite(suite: SuiteResults, results: RunResults) -> Grid:
    methods = suite.methods
    halved = any(share(one.overall.halves) != share(one.overall.value) for one in methods)
    sections = list(dict.fromkeys(name for one in methods for name in one.sections))
    length = {one.method: one.within_prompt.value for one in results.length if one.suite == suite.name}
    rows = []
    for one in methods:
        versus = one.versus_bradley_terry
        figures = [one.overall, *(one.sections.get(name) for name in sections)]
        rows.append(
            [
                Cell(one.label),
                *(share_of(figure.interval if figure else None) for figure in figures),
                *((Cell(), Cell()) if versus is None else difference(versus.difference, versus.p)),
                *([Cell(share(one.overall.halves))] if halved else []),
                Cell(count(one.overall.ties)),
                Cell(count(one.overall.unscored)),
                Cell(signed_hundredths(length.get(one.method))),
            ]
        )
    sizes = [count(max((one.sections[name].n for one in methods if name in one.sections), default=0)) for name in sections]
    head = [Cell("method"), Cell(_WHOLE, f"n = {count(suite.n)}")]
    head += [Cell(name, f"n = {n}") for name, n in zip(sections, sizes, strict=True)]
    head += [Cell("over BT", "points"), Cell("p"), *([Cell("ties as halves")] if halved else [])]
    head += [Cell("ties"), Cell("unscored"), Cell("ρ(length)")]
    title = f"{suite.name}: accuracy in %, {count(suite.n)} pairs of {count(suite.groups)} prompts"
    about = subject([one.method for one in methods]) if methods else None
    return Grid(f"suite {suite.name}", title, _SUITE, head, [Block("", rows, subject=about)])


def _length(results: RunResults) -> Grid:
    labels = {one.method: one.label for suite in results.suites for one in suite.methods}
    rows: list[Row] = [
        [
            one.suite,
            labels.get(one.method, one.method),
            *(estimate(x, signed_hundredths) for x in (one.pooled, one.within_prompt)),
        ]
        for one in results.length
    ]
    lead = (
        "How far each method's score follows the answer's length in tokens: rank correlation, 0 is none, 1 means that longer "
        "always scores higher."
    )
    return grid("length", "Length", ("suite", "method", "all answers", "same prompt"), rows, lead=lead, words=(0, 1))


def abstention_grid(suite: SuiteAbstention) -> Grid:
    """Error rates by the share of pairs left open."""
    by_margin = {round(point.abstained, 2): point for point in suite.by_margin}
    rows: list[Row] = []
    for point in suite.by_z:
        other = by_margin.get(round(point.abstained, 2))
        cells = [percent(point.abstained, 0), decimal(point.threshold, 2), count(point.decided)]
        rows.append([*cells, share_of(point.error), share_of(other.error if other else None)])
    head = ("left open", "z at least", "pairs decided", Cell("wrong, by z", "%"), Cell("wrong, by margin", "%"))
    rules = "; ".join(
        f"z = {general(p.threshold)} leaves {percent(p.abstained)} open and {percent(p.error.value)} of the rest wrong"
        for p in suite.rules
    )
    gain = suite.area_gain
    remark = (
        f"Mean error over all shares: {percent(suite.area_z.value)} by z, {percent(suite.area_margin.value)} by margin; the "
        "standard "
        f"deviations save {points(gain.value)} points ({points(gain.low)} to {points(gain.high)}). Too close at |margin| < z · "
        f"std: {rules}."
    )
    title = f"Too close to call: {suite.suite}"
    return grid(f"abstention {suite.suite}", title, head, rows, remarks=[remark], words=())


def _planted(rows: Sequence[PlantedRow]) -> Grid:
    lead = (
        "Made-up data whose right answer is known, on held-out prompts: each row says what must come out, what came out, and, "
        "where there is one, what comes out when the stage responsible is taken away."
    )
    lines = []
    for row in rows:
        off = [Cell(""), Cell("")] if row.ablation is None else [Cell(row.ablation.what), Cell(signed(row.ablation.value))]
        lines.append([Cell(row.what), Cell(row.aim or "none"), Cell(signed(row.value)), _met(row.met), *off])
    head = ("what", "aim", "value", "met", "stage off", "value then")
    return grid("planted", "Planted truth", head, lines, lead=lead, words=(0, 1, 3, 4))


def _met(met: bool | None) -> Cell:
    """Without an aim there is nothing to meet."""
    return Cell("") if met is None else Cell("yes", tone="good") if met else Cell("no", tone="bad")
