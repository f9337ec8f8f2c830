"""`armorm tune`: arguments → a trained decoder, its facts → a table.

In: a recipe's path, an objective's name.  Out: JSON facts or rich tables.  Cost: the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from rich.table import Table

from armorm.errors import RecipeError
from armorm.progress import Reporter
from armorm.recipe import TrainingObjective, load_recipe
from armorm.run.tune import tune


def tuned(path: Path, objective: str, out: Path | None, *, json_: bool, quiet: bool) -> Any:
    """Train, and say what came out. Raises RecipeError for an objective that there isn't."""
    known = get_args(TrainingObjective)
    if objective not in known:
        raise RecipeError(f"{objective!r} is no objective to train for; there are {', '.join(known)}")
    recipe = load_recipe(path)
    folder = out or Path("runs") / recipe.name
    stage = tune(recipe, objective, folder / "tuned" / objective, reporter=Reporter(quiet=quiet))  # type: ignore[arg-type]  # checked above
    facts = {**stage.facts, "model": str(stage.folder / "model")}
    return facts if json_ else [_table(facts), f"decoder: {facts['model']}", f"curve: {stage.folder / 'training.svg'}"]


def _table(facts: Mapping[str, Any]) -> Table:
    size = f"{facts['steps']:,} steps, {facts['examples']:,} examples, {facts['tokens']:,} tokens, {facts['seconds']:,.0f} s"
    table = Table(title=f"{facts['objective']}: {size}", title_justify="left", title_style="bold")
    for name in ("step", "held-out loss", "held-out accuracy"):
        table.add_column(name, justify="right")
    for row in facts["evaluations"]:
        table.add_row(str(row["step"]), f"{row['loss']:.4f}", f"{100 * row['accuracy']:.1f}" if "accuracy" in row else "")
    return table
