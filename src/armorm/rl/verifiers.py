"""Rewards for verifiers (and prime-rl): functions over a trace, plugged in by their path.

In: a trace's messages.  Out: a float, or named floats.  Cost: one pass for each trace.

    [taskset.task.rewards.armorm]
    fn = "armorm.rl.verifiers.score"

    [taskset.task.metrics.armorm_objectives]
    fn = "armorm.rl.verifiers.objectives"

`contributions` gives the score's terms as rewards, which verifiers sums up to the score. The settings stand in the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from armorm.rl.rewarder import Row, column, rewarder


async def score(trace: Any) -> float:
    """The score of the trace's last branch."""
    row = await _row(trace)
    return rewarder().settings.number if row is None else row.score


async def contributions(trace: Any) -> dict[str, float]:
    """The terms that sum to the score; `unscored` alone where there is none."""
    row = await _row(trace)
    return {"unscored": rewarder().settings.number} if row is None else dict(row.named("contributions"))


async def objectives(trace: Any) -> dict[str, float]:
    """Each objective's number; nothing where there is none. As metrics they are logged and not summed."""
    row = await _row(trace)
    return {} if row is None else {column(name): x for name, x in row.named(rewarder().settings.part).items()}


async def _row(trace: Any) -> Row | None:
    messages = [message if isinstance(message, Mapping) else message.model_dump(exclude_none=True) for message in trace.messages]
    return (await rewarder().rows_async([messages]))[0]
