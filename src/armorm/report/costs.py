"""What a plan says a run will cost, as tables.

In: JSON facts of `run.pricing`.  Out: a `Report`: a row for each stage, a row for each decoder and GPU, what was assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from armorm.numbers import DASH
from armorm.report.tables import Report, grid

_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))
_TIMES = ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
"""A unit is used from two of it on."""


def costs_report(costs: Mapping[str, Any]) -> Report:
    """What each stage takes here, and the features elsewhere."""
    stages = [[one["stage"], _time(one["seconds"]), _size(one["disk"]), _size(one["memory"])] for one in costs["stages"]]
    gpus = [[one["decoder"], one["gpu"], _time(3600 * one["hours"]), f"{one['needed']}"] for one in costs["gpus"]]
    here = f"costs here, about: {costs['rated']:,} ratings, {costs['pairs']:,} pairs, {_count(costs['tokens'])} tokens"
    there = f"features on one GPU, about, at {costs['utilisation']:.0%} of its published bfloat16 rate"
    return Report(
        "",
        grids=[
            grid("stages", here, ("stage", "time", "disk", "memory"), stages),
            grid("gpus", there, ("decoder", "GPU", "time", "GPUs that hold it"), gpus, words=(0, 1)),
        ],
        notes=[f"assumed: {one}" for one in costs["assumed"]],
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    unit, name = next((found for found in _TIMES if seconds >= 2 * found[0]), (1.0, "seconds"))
    return "under a second" if seconds < 1 else f"{_digits(seconds / unit)} {name}"


def _size(size: float | None) -> str:
    if size is None:
        return DASH
    unit, name = next((found for found in _SIZES if size >= found[0]), _SIZES[-1])
    return DASH if size < 1e5 else f"{_digits(size / unit)} {name}"


def _count(count: float) -> str:
    return f"{count:,.0f}"


def _digits(value: float) -> str:
    return f"{float(f'{value:.1e}'):,g}"
