"""Whether the gate is worth having where it has never been, in tables and sentences.

In: how its strength was chosen, every method over all sections.  Out: grids, sentences.
"""

from __future__ import annotations

from armorm.bench.every_section import AllSections
from armorm.numbers import count, decimal, percent, points, share, signed
from armorm.report.run_results import GateChoice
from armorm.report.tables import Cell, Grid, Row, block, estimate, share_of, table

TOO_FEW = "There were too few pairs to leave any out: the gate is one weight vector, the same for every prompt."
_KINDS = {"sources": "sources", "clusters": "clusters of prompts"}


def choice_grid(choice: GateChoice) -> Grid:
    """Each strength on each part that was left out: log-loss, and the share ranked right under it."""
    head: list[str | Cell] = ["kl", *(Cell(part.name, f"n = {count(part.n)}") for part in choice.parts)]
    head += ["mean", Cell("above the least", "± s. e."), ""]
    rows: list[Row] = []
    for one in choice.strengths:
        n = len(one.loss)
        cells = [Cell(decimal(loss), f"{share(right)} %") for loss, right in zip(one.loss, one.accuracy, strict=True)]
        mean = Cell(decimal(sum(one.loss) / n), f"{share(sum(one.accuracy) / n)} %")
        over = Cell(signed(one.excess, 4), f"± {decimal(one.error, 4)}") if one.kl != choice.best else Cell("0", "the least")
        rows.append([_named(one.kl), *cells, mean, over, "chosen" if one.kl == choice.chosen else ""])
    return table(
        "run.gate-choice",
        rows,
        head=head,
        parts=_KINDS[choice.kind],
        steps=count(choice.steps),
        chosen=_named(choice.chosen),
        verdict=choice_verdict(choice),
    )


def choice_verdict(choice: GateChoice) -> str:
    """In a sentence or two, whether the gate earns its keep on parts that it has not seen."""
    if choice.gain is None:
        return TOO_FEW
    gain, kind = choice.gain, _KINDS[choice.kind]
    numbers = (
        f"over {len(choice.parts)} left-out {kind} its log-loss is {decimal(abs(gain.loss), 4)} "
        f"{'lower' if gain.loss >= 0 else 'higher'} than that of one weight vector (standard error {decimal(gain.error, 4)}), "
        f"its accuracy {points(gain.accuracy)} points"
    )
    if choice.chosen == "inf":
        return (
            f"The gate does not earn its keep on {kind} that it has not seen, and is one weight vector: at its best, {numbers}."
        )
    if gain.loss > gain.error:
        return f"The gate earns its keep on {kind} that it has not seen: at its best, {numbers}."
    return f"Whether the gate earns its keep on {kind} that it has not seen is within chance: at its best, {numbers}."


def sections_grid(every: AllSections, about: int | None) -> Grid:
    """Every method over all sections; `about` is the place of the method that the report is about."""
    rows: list[Row] = [
        [
            one.label,
            share_of(one.mean.interval),
            estimate(one.versus_bradley_terry, points),
            Cell(points(-one.behind) if one.behind else "0", one.worst if one.behind else ""),
        ]
        for one in every.methods
    ]
    return table("run.all-sections", blocks=[block(rows, subject=about)], sections=count(len(every.sections)))


def sections_verdict(every: AllSections, about: int) -> str:
    """In a sentence, how the report's method does over all sections."""
    one = every.methods[about]
    text = f"over all {count(len(every.sections))} sections alike {one.label} ranks {percent(one.mean.value)} right"
    if (gap := one.versus_bradley_terry) is not None:
        text += f", {points(gap.value)} points from Bradley–Terry (95 % interval {points(gap.low)} to {points(gap.high)})"
    if not one.behind:
        return f"{text}, and no method is above it in any section."
    return (
        f"{text}; at its worst section, {one.worst}, it is {points(one.behind).removeprefix('+')} points behind the best method."
    )


def _named(kl: str) -> str:
    return "inf (no gate)" if kl == "inf" else kl
