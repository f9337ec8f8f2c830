"""OpenRLHF's reward file: `--reward.remote_url .../armorm/rl/openrlhf.py` calls `reward_func(queries, prompts, labels)`.

In: whole texts as the policy wrote them, with special tokens; prompts in its template.  Out: tensors [n] of rewards and scores,
and of what they are made of.  Cost: one pass for each call; OpenRLHF calls once for each sample, so a server serves it better.

The settings stand in the environment. OpenRLHF ends the run at a reward that is None, so what can't be scored gets a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from armorm.rl.conversations import from_query, paired
from armorm.rl.rewarder import SCORE, rewarder


def reward_func(queries: Any, prompts: Any, *_: Any, **__: Any) -> dict[str, Any]:
    """`rewards` and `scores` [n], and `extra_logs`: the objectives' numbers, and whether there is a score (`scored`).

    A query that does not begin with its prompt has no score, as at a server's `/get_reward`.
    """
    asked = rewarder()
    rows = asked.rows([from_query(query, prompt) for query, prompt in paired(queries=queries, prompts=prompts)])
    columns = _columns([asked.numbers(row) for row in rows])
    rewards = columns.pop(SCORE)
    return {"rewards": rewards, "scores": rewards, "extra_logs": columns}


def _columns(rows: Sequence[dict[str, float]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]} if rows else {SCORE: torch.zeros(0)}
