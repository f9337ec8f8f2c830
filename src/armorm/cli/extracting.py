"""`armorm extract`: the features alone, by one process or some by each of several.

In: arguments.  Out: a table, or JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from armorm.cli.options import Features, Json, Quiet, RecipeFile, RunFolder
from armorm.cli.printing import print_result

ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard", help="I/N: this process is the I-th of N, each of which computes every N-th shard. See docs/scale.md."
    ),
]


def extract(
    recipe: RecipeFile,
    out: RunFolder = None,
    features: Features = None,
    shard: ShardOf = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """The decoder's part of `train` alone: features of a recipe's rows, on as many GPUs and machines as there are."""
    from armorm.features.workers import Worker
    from armorm.progress import Reporter
    from armorm.recipe import load_recipe
    from armorm.report.extraction import extraction_report
    from armorm.run.extraction import extract as extract_features

    worker = Worker.parse(shard) if shard is not None else None
    loaded = load_recipe(recipe)
    place = features or (out or Path("runs") / loaded.name) / "features"
    found = extract_features(loaded, place, worker=worker, reporter=Reporter(quiet=quiet))
    print_result(found, lambda: extraction_report(found), json_=json_, then=f"features: {found.folder}")
