"""`armorm steer`: check a profile against a model, and bake it in.

In: arguments.  Out: a verdict; a model folder.  Cost: loading the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from armorm.cli.options import Json, Model, NewFolder
from armorm.cli.printing import print_json, print_parts

steer_app = typer.Typer(no_args_is_help=True, help="Steering profiles: check one against a model, or bake it in.")
Profile = Annotated[Path, typer.Argument(help="A profile (YAML); see docs/steer.md.")]


@steer_app.command()
def check(profile: Profile, model: Model, json_: Json = False) -> None:
    """Say whether a profile fits a model, every fault at once, and how it moves the mean weights."""
    from armorm.jobs.explain import check_profile

    fit = check_profile(profile, model)
    print_json(fit) if json_ else print_parts(fit.parts())


@steer_app.command()
def bake(model: Model, profile: Profile, out: NewFolder, json_: Json = False) -> None:
    """Write a copy of the model that always scores under the profile."""
    from armorm.jobs.explain import bake_profile

    facts = bake_profile(model, profile, out)
    print_json(facts) if json_ else print_parts([f"model: {facts['model']} (profile {facts['profile']['name']})"])
