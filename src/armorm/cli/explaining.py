"""`armorm explain` and `armorm steer check`: what was found → tables.

In: `Explained`, a checked profile's facts.  Out: rich tables and texts.  Cost: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from armorm.jobs.explain import Explained
from armorm.scoring.explain import bar
from armorm.scoring.reference import Alike, shortened


def explain_tables(found: Explained) -> list[Any]:
    """For the terminal: the difference or the score with bars, then the gate's neighbours."""
    parts: list[Any] = []
    if found.difference is not None:
        parts.append(found.difference)
        parts += [Text(f"{name}: {one.sentence}") for name, one in found.explanations.items()]
    else:
        parts += list(found.explanations.values()) or [_gate_table(found.gate, found.gate_as_trained, found.profile)]
    return [*parts, _alike_table(found.alike)] if found.alike else parts


def check_table(facts: Mapping[str, Any]) -> list[Any]:
    """The verdict, and each objective's mean weight without and with the profile where the model has a reference."""
    verdict = Text(f"{facts['profile']['name']} fits {facts['model']}")
    if "mean_weights" not in facts:
        return [verdict]
    table = Table(title=f"mean weight over {facts['prompts']:,} training prompts", title_justify="left", title_style="bold")
    table.add_column("objective")
    for head in ("as trained", "steered", "change"):
        table.add_column(head, justify="right")
    table.add_column("", no_wrap=True)
    moves = {name: w["steered"] - w["as_trained"] for name, w in facts["mean_weights"].items()}
    reach = max(map(abs, moves.values()), default=0.0)
    for name, w in facts["mean_weights"].items():
        cells = (f"{w['as_trained']:.3f}", f"{w['steered']:.3f}", f"{moves[name]:+.3f}".replace("-", "−"))
        table.add_row(Text(name), *cells, bar(moves[name], reach))
    return [verdict, table]


def _gate_table(gate: Mapping[str, float], as_trained: Mapping[str, float], profile: str | None) -> Table:
    title = "weights that this prompt opens" + (f", profile {profile}" if profile is not None else "")
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    table.add_column("objective")
    for head in ("as trained", "weight") if as_trained else ("weight",):
        table.add_column(head, justify="right")
    table.add_column("", no_wrap=True)
    reach = max(gate.values(), default=0.0)
    for name in sorted(gate, key=lambda n: -gate[n]):
        cells = [f"{as_trained[name]:.3f}"] if as_trained else []
        table.add_row(Text(name), *cells, f"{gate[name]:.3f}", Text("█" * round(20 * gate[name] / reach), style="blue"))
    return table


def _alike_table(alike: Sequence[Alike]) -> Table:
    table = Table(
        title="training prompts that open the gate alike (0 = the same weights)", title_justify="left", title_style="bold"
    )
    table.add_column("distance", justify="right")
    table.add_column("source")
    table.add_column("prompt")
    for one in alike:
        table.add_row(f"{one.distance:.3f}", Text(one.source), Text(shortened(one.prompt, 90)))
    return table
