"""`armorm steer`: check a profile against a model, and bake it in.

In: arguments.  Out: a verdict; a model folder.  Cost: loading the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from armorm.cli.printing import printed

steer_app = typer.Typer(no_args_is_help=True, help="Steering profiles: check one against a model, or bake it in.")
ProfileFile = Annotated[Path, typer.Argument(help="A profile (YAML); see docs/steer.md.")]
Model = Annotated[str, typer.Argument(help="A model folder (runs/NAME/model) or hub id.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@steer_app.command()
def check(profile: ProfileFile, model: Model, json_: Json = False) -> None:
    """Say whether a profile fits a model, every fault at once, and how it moves the mean weights."""
    from armorm.jobs.explain import check_table, checked

    facts = checked(profile, model)
    printed(facts if json_ else check_table(facts), json_=json_, markup=False)


@steer_app.command()
def bake(
    model: Model,
    profile: ProfileFile,
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    json_: Json = False,
) -> None:
    """Write a copy of the model that always scores under the profile."""
    from armorm.jobs.explain import baked

    facts = baked(model, profile, out)
    printed(facts if json_ else [f"model: {facts['model']} (profile {facts['profile']['name']})"], json_=json_, markup=False)
