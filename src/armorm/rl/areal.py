"""AReaL's reward function: `RLVRWorkflow(reward_fn="armorm.rl.areal.reward")`, called in a pool of processes.

In: AReaL's prompt and completion as texts with special tokens, and the row's columns.  Out: a float.
Cost: one pass for each call, and a model for each process: with a server neither torch nor a model is loaded there.

The settings stand in the environment. AReaL waits 15 s for a reward and tries three times more.
"""

from __future__ import annotations

from typing import Any

from armorm.rl.conversations import from_text, prompt_in
from armorm.rl.rewarder import rewarder


def reward(*handed: Any, **columns: Any) -> float:
    """The score. The row's own `messages` are the prompt where it has them; else the prompt's text is taken apart.

    AReaL hands over prompt, completions, prompt_ids and completion_ids by position, or by these names (images); the row's columns
    come by their names, and may be called so too where the four come by position.
    """
    prompt, completions = handed[:2] if handed else (columns["prompt"], columns["completions"])
    asked, own = rewarder(), prompt_in(columns, "messages")
    (row,) = asked.rows([from_text(prompt if own is None else own, completions)])
    return asked.settings.number if row is None else row.score
