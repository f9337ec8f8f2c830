"""A run's results as tables and sentences.

In: `RunResults`.  Out: a `Report`: data, probe, uncertainty, debiasing, every suite, length, P(right), close calls, the planted
truth.
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
    hundredths,
    percent,
    points,
    share,
    share_ends,
    signed,
    signed_general,
    signed_hundredths,
)
from armorm.report.gate_tables import choice_grid, choice_verdict, sections_grid, sections_verdict
from armorm.report.run_results import (
    DebiasFacts,
    MethodOnSuite,
    PaddedCopies,
    PlantedRow,
    PreferenceFacts,
    RunResults,
    SuiteAbstention,
    SuiteReliability,
    SuiteResults,
    UncertaintyFacts,
)
from armorm.report.tables import Cell, Grid, Report, Row, block, difference, estimate, has_value, share_of, table

TERMINAL = ("probe", "debias", "padding", "gate-choice", "suite", "all-sections", "planted")
"""Tables that the terminal shows, by the first word of their names."""

_AIMS = {
    "intervention": " and that added padding buys, so that padding gains no reward anything",
    "agreed": ", as far as its correlation on the reference answers and what padding gains it agree",
}
_SETTLED = 0.05
_MET = {True: Cell("yes", tone="good"), False: Cell("no", tone="bad"), None: Cell("")}


def run_report(results: RunResults) -> Report:
    """Everything that a run found, in tables."""
    tried = [[one.feature, decimal(one.pearson)] for one in results.probe.candidates]
    grids = [_sources(results), _objectives(results), table("run.candidates", tried, feature=results.probe.feature)]
    grids += [_probe(results), uncertainty_grid(results.probe.uncertainty)]
    if results.debias is not None:
        grids.append(_debias(results.debias))
        grids += [padding_grid(results.debias, copies)] if (copies := results.debias.padding) else []
    if (choice := results.gate.choice) is not None and choice.parts:
        grids.append(choice_grid(choice))
    grids += [_suite(suite, results) for suite in results.suites]
    if (every := results.all_sections) is not None:
        grids.append(sections_grid(every, subject([one.method for one in every.methods])))
    grids.append(_length(results))
    if results.preference is not None:
        grids.append(reliability_grid(results.preference, results.reliability))
    grids += [bins_grid(one) for one in results.reliability if one.n]
    grids += [abstention_grid(one) for one in results.abstention if one.n]
    if results.planted is not None:
        grids.append(_planted(results.planted.rows))
    sentences = [f"{suite.name}: {said}" for suite in results.suites if (said := verdict(suite))]
    sentences += _about_new_places(results)
    return Report(results.name, _facts(results), sentences, grids=grids, notes=results.warnings)


def terminal_report(report: Report) -> Report:
    """What the terminal shows of it."""
    return Report("", grids=[one for one in report.grids if one.name.split(" ")[0] in TERMINAL])


def subject(methods: Sequence[str]) -> int:
    """The method that the report is about: the first whose name holds "armorm", else the first."""
    return next((place for place, name in enumerate(methods) if "armorm" in name.lower()), 0)


def sections_of(suite: SuiteResults) -> list[str]:
    """The sections that any method has."""
    return list(dict.fromkeys(name for one in suite.methods for name in one.sections))


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


def _about_new_places(results: RunResults) -> list[str]:
    every, choice = results.all_sections, results.gate.choice
    said = [] if every is None else [sections_verdict(every, subject([one.method for one in every.methods]))]
    return said + ([] if choice is None else [choice_verdict(choice)])


def _facts(results: RunResults) -> dict[str, str]:
    backbone = results.backbone
    per_second = "" if backbone.tokens_per_second is None else f" at {count(backbone.tokens_per_second)} tokens/s"
    return {
        **results.origin(),
        "backbone": f"{backbone.model}, {backbone.dtype}, width {count(backbone.width)}, blocks read: {backbone.layers}",
        "features": f"{count(backbone.tokens)} tokens{per_second}, {count(backbone.truncated)} rows truncated",
        "time": ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in results.seconds.items()),
    }


def _sources(results: RunResults) -> Grid:
    data = results.data
    rows = [[s.name, s.kind, *map(count, (s.rows, s.kept, s.groups, s.truncated)), counts(s.drops)] for s in data.sources]
    splits = "; ".join(f"{kind}: {counts(parts)}" for kind, parts in data.splits.items())
    return table("run.sources", rows, remarks=[f"Splits by prompt: {splits}."])


def _objectives(results: RunResults) -> Grid:
    rows = [
        [o.name, o.rater or "–", f"{general(o.min)} to {general(o.max)}", count(o.n), decimal(o.mean, 2)]
        for o in results.data.objectives
    ]
    return table("run.objectives", rows)


def _probe(results: RunResults) -> Grid:
    rows: list[Row] = [
        [
            Cell(o.name, " ".join(o.warnings)),
            count(o.n_train),
            count(o.n_test),
            general(o.alpha),
            *map(estimate, (o.pearson, o.spearman, o.r2, o.rmse_raw, o.auc)),
        ]
        for o in results.probe.objectives
    ]
    tried = ", ".join(f"{c.feature} {decimal(c.pearson)}" for c in results.probe.candidates)
    return table("run.probe", rows, feature=results.probe.feature, tried=tried)


def uncertainty_grid(part: UncertaintyFacts) -> Grid:
    """What each objective's intervals are made of, and how often they hold."""
    rows: list[Row] = [
        [
            o.name,
            *map(decimal, (o.sigma, o.mean_std)),
            *map(hundredths, (o.inflation, o.reach, o.mean_width)),
            count(o.n_test),
            *map(share_of, (o.coverage, o.coverage_cross_validated)),
        ]
        for o in part.objectives
    ]
    inside, level = percent(part.coverage.value), round(100 * part.level)
    return table("run.uncertainty", rows, level=level, inside=inside, ratings=count(part.n_test), ends=share_ends(part.coverage))


def _debias(debias: DebiasFacts) -> Grid:
    rows = []
    for o in debias.objectives:
        for nuisance, coefficient in o.coefficients.items():
            reference, held_out = o.reference[nuisance], o.held_out[nuisance]
            numbers = (coefficient, reference.before, reference.after, held_out.before, held_out.after)
            rows.append([o.name, nuisance, *map(signed, numbers)])
    answers, sources = count(debias.reference.n), ", ".join(debias.reference.sources)
    measure = "spearman" if debias.method in _AIMS else debias.method
    how = measure if debias.over == "pooled" else f"{measure}, of differences {debias.over.replace('-', ' ')}"
    aim = _AIMS.get(debias.method, ", so that the two no longer correlate on the reference answers")
    told = "".join(
        f" By chance alone the largest correlation after, on {count(debias.held_out.n)} held-out answers, would be "
        f"{one.mean:.3f} with {name} (up to {one.high:.3f})."
        for name, one in debias.held_out.chance.items()
        if math.isfinite(one.mean)
    )
    return table("run.debias", rows, aim=aim, chance=told, method=how, itself=debias.itself, answers=answers, sources=sources)


def padding_grid(debias: DebiasFacts, copies: PaddedCopies) -> Grid:
    """What padding does to each reward, and λ by either way beside the one that was taken."""
    rows: list[Row] = []
    for o in debias.objectives:
        if (found := o.padding) is None:
            continue
        for nuisance, coefficient in o.coefficients.items():
            slopes = (found.correlation[nuisance], found.padding[nuisance], coefficient)
            shifts = (estimate(one, signed_hundredths) for one in (found.shift, found.shift_after))
            rows.append([o.name, nuisance, *map(signed_general, slopes), *shifts])
    moved = ", ".join(f"{name} {signed_general(by)}" for name, by in copies.moved.items())
    left_out = f" Left out: {counts(copies.left_out)}." if copies.left_out else ""
    n, prompts, taken = count(copies.n), count(copies.prompts), debias.method
    return table("run.padding", rows, copies=n, prompts=prompts, moved=moved, taken=taken, left_out=left_out)


def _suite(suite: SuiteResults, results: RunResults) -> Grid:
    methods, sections = suite.methods, sections_of(suite)
    halved = any(share(one.overall.halves) != share(one.overall.value) for one in methods)
    length = {one.method: one.within_prompt.value for one in results.length if one.suite == suite.name}
    rows: list[Row] = [
        [
            one.label,
            *(share_of(figure.interval if figure else None) for figure in (one.overall, *map(one.sections.get, sections))),
            *difference(one.versus_bradley_terry),
            *([share(one.overall.halves)] if halved else []),
            *map(count, (one.overall.ties, one.overall.unscored)),
            signed_hundredths(length.get(one.method)),
        ]
        for one in methods
    ]
    sizes = [count(max((one.sections[name].n for one in methods if name in one.sections), default=0)) for name in sections]
    columns = zip(["all", *sections], [count(suite.n), *sizes], strict=True)
    head: list[str | Cell] = ["method", *(Cell(name, f"n = {n}") for name, n in columns), Cell("over BT", "points"), "p"]
    head += [*(["ties as halves"] if halved else []), "ties", "unscored", "ρ(length)"]
    about = subject([one.method for one in methods]) if methods else None
    said = {"n": count(suite.n), "groups": count(suite.groups)}
    return table("run.suite", blocks=[block(rows, subject=about)], name=suite.name, head=head, **said)


def _length(results: RunResults) -> Grid:
    labels = results.labels()
    rows: list[Row] = [
        [
            one.suite,
            labels.get(one.method, one.method),
            *(estimate(x, signed_hundredths) for x in (one.pooled, one.within_prompt)),
        ]
        for one in results.length
    ]
    return table("run.length", rows)


def reliability_grid(preference: PreferenceFacts, suites: Sequence[SuiteReliability]) -> Grid:
    """How far P(right) holds on each suite, and what it was made of."""
    rows: list[Row] = [
        [
            one.suite,
            *map(count, (one.n, one.groups)),
            share_of(one.ece),
            Cell(share(one.chance), f"up to {share(one.chance_high)}" if math.isfinite(one.chance_high) else ""),
            *(estimate(number, decimal) for number in (one.log_loss, one.brier)),
        ]
        for one in suites
    ]
    return table("run.reliability", rows, remarks=[_fitted(preference)])


def _fitted(preference: PreferenceFacts) -> str:
    if preference.form is None:
        return f"There is none: {preference.reason}."
    tried = ", ".join(f"{form} {decimal(loss)}" for form, loss in preference.log_loss.items())
    slope = "" if preference.form == "isotonic" else f", slope {general(preference.slope)} log-odds per unit of the score"
    return (
        f"Fitted on {count(preference.pairs)} validation pairs of {count(preference.prompts)} prompts: {preference.form}{slope}, "
        f"by log-loss on prompts that the fit did not see ({tried}). So many prompts can't show more than "
        f"{percent(preference.most)}, and no probability is higher."
    )


def bins_grid(suite: SuiteReliability) -> Grid:
    """What was promised of the pairs of a bin, and what was found."""
    rows: list[Row] = [[count(one.n), share(one.confidence), share_of(one.right)] for one in suite.bins]
    return table("run.reliability-bins", rows, name=suite.suite)


def abstention_grid(suite: SuiteAbstention) -> Grid:
    """Error rates by the share of pairs left open; by margin alone where there is no calibration."""
    points = suite.by_probability or suite.by_margin
    rows: list[Row] = [
        [
            percent(point.abstained, 0),
            percent(point.threshold) if suite.by_probability else decimal(point.threshold),
            count(point.decided),
            share_of(point.error),
            share(point.promised),
            share_of(by_margin.error),
        ]
        for point, by_margin in zip(points, suite.by_margin, strict=True)
    ]
    least = "P(right) at least" if suite.by_probability else "|margin| at least"
    shares = [Cell(text, "%") for text in ("wrong", "promised", "wrong, by margin")]
    head: list[str | Cell] = ["left open", least, "pairs decided", *shares]
    return table("run.abstention", rows, name=suite.suite, head=head, remarks=_rules(suite))


def _rules(suite: SuiteAbstention) -> list[str]:
    if not suite.by_probability:
        return [f"Mean error over all shares: {percent(suite.area_margin.value)}, by margin; P(right) is not calibrated."]
    rules = "; ".join(
        f"at {percent(p.threshold, 0)}, {percent(p.abstained)} are left open and {percent(p.error.value)} of the rest are wrong "
        f"({percent(p.promised)} promised)"
        for p in suite.rules
        if p.decided
    )
    gain, areas = suite.area_gain, [percent(one.value) for one in (suite.area_probability, suite.area_margin)]
    called = f"Called at a probability: {rules}." if rules else f"No pair reaches {percent(suite.rules[0].threshold, 0)}."
    return [
        f"Mean error over all shares: {areas[0]} by probability, {areas[1]} by margin ({points(gain.value)} points, "
        f"{points(gain.low)} to {points(gain.high)}): the probability never falls with the margin, so the orders differ only "
        f"where it gives one value to several margins. {called}"
    ]


def _planted(rows: Sequence[PlantedRow]) -> Grid:
    lines: list[Row] = []
    for row in rows:
        off = ["", ""] if row.ablation is None else [row.ablation.what, signed(row.ablation.value)]
        lines.append([row.what, row.aim or "none", signed(row.value), _MET[row.met], *off])
    return table("run.planted", lines)
