"""A run's results as tables and sentences.

In: `RunResults`.  Out: a `Report`: data, probe, uncertainty, debiasing, every suite, length, close calls, the planted truth.
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
from armorm.report.run_results import (
    DebiasFacts,
    MethodOnSuite,
    PaddedCopies,
    PlantedRow,
    RunResults,
    SuiteAbstention,
    SuiteResults,
    UncertaintyFacts,
)
from armorm.report.tables import Cell, Grid, Report, Row, block, difference, estimate, has_value, share_of, table

TERMINAL = ("probe", "debias", "padding", "suite", "planted")
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
    grids += [_suite(suite, results) for suite in results.suites]
    grids.append(_length(results))
    grids += [abstention_grid(one) for one in results.abstention if one.n]
    if results.planted is not None:
        grids.append(_planted(results.planted.rows))
    sentences = [f"{suite.name}: {said}" for suite in results.suites if (said := verdict(suite))]
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
    return table("run.debias", rows, aim=aim, method=how, itself=debias.itself, answers=answers, sources=sources)


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


def abstention_grid(suite: SuiteAbstention) -> Grid:
    """Error rates by the share of pairs left open."""
    by_margin = {round(point.abstained, 2): point.error for point in suite.by_margin}
    rows: list[Row] = [
        [
            percent(point.abstained, 0),
            hundredths(point.threshold),
            count(point.decided),
            *map(share_of, (point.error, by_margin.get(round(point.abstained, 2)))),
        ]
        for point in suite.by_z
    ]
    rules = "; ".join(
        f"z = {general(p.threshold)} leaves {percent(p.abstained)} open and {percent(p.error.value)} of the rest wrong"
        for p in suite.rules
    )
    gain = suite.area_gain
    remark = (
        f"Mean error over all shares: {percent(suite.area_z.value)} by z, {percent(suite.area_margin.value)} by margin; the "
        f"standard deviations save {points(gain.value)} points ({points(gain.low)} to {points(gain.high)}). Too close at "
        f"|margin| < z · std: {rules}."
    )
    return table("run.abstention", rows, name=suite.suite, remarks=[remark])


def _planted(rows: Sequence[PlantedRow]) -> Grid:
    lines: list[Row] = []
    for row in rows:
        off = ["", ""] if row.ablation is None else [row.ablation.what, signed(row.ablation.value)]
        lines.append([row.what, row.aim or "none", signed(row.value), _MET[row.met], *off])
    return table("run.planted", lines)
