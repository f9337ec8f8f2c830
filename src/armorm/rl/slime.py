"""slime's custom reward: `--custom-rm-path armorm.rl.slime.reward`, for a sample or a list of them (`--group-rm`).

In: slime's arguments and samples (prompt, response).  Out: a float for each; with `--reward-key` a dict that holds it.
Cost: one pass for each call.

The settings stand in the environment.
"""

from __future__ import annotations

from typing import Any

from armorm.conversation import entries_of
from armorm.rl.conversations import from_text, prompt_in
from armorm.rl.rewarder import rewarder


async def reward(args: Any, sample: Any, **_: Any) -> Any:
    """A reward, or a list of them for a list. What can't be scored gets the number that the settings name."""
    several = entries_of(sample)
    asked = rewarder()
    rows = await asked.rows_async([_conversation(one) for one in ([sample] if several is None else several)])
    dicts = bool(getattr(args, "reward_key", None) or getattr(args, "eval_reward_key", None))
    found = [asked.numbers(row) if dicts else asked.settings.number if row is None else row.score for row in rows]
    return found[0] if several is None else found


def _conversation(sample: Any) -> Any:
    # The messages that the sample's own data hold, where they do: its prompt may be in the policy's template.
    prompt = prompt_in(getattr(sample, "metadata", None), "messages")
    return from_text(sample.prompt if prompt is None else prompt, sample.response)
