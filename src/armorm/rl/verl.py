"""verl's custom reward function: one answer at a time, a number or a dict with the same keys in all rows.

In: verl's keywords (data_source, solution_str, ground_truth, extra_info).  Out: a float, or a dict with `score` and each
objective.  Cost: one pass for each answer; verl asks for each sample by itself, so a server serves it better.

    reward.custom_reward_function.path=pkg://armorm.rl.verl
    reward.custom_reward_function.name=compute_rewards_async

The token that ended an answer is taken off. The prompt comes in `extra_info`, under `messages`, `prompt` or `question`: verl
hands over no other. With `algorithm.adv_estimator=gdpo` the dict's names stand in `algorithm.gdpo_reward_keys`. Settings that
stand in `reward_kwargs` are taken in place of the environment's, each by itself; a name that is no setting's is refused.
"""

from __future__ import annotations

from typing import Any

from armorm.errors import UserError
from armorm.rl.conversations import from_text, prompt_in
from armorm.rl.rewarder import SCORE, Rewarder, rewarder
from armorm.rl.settings import settings_of

KEYS = ("messages", "prompt", "raw_prompt", "question")
VERLS = ("reward_router_address", "reward_model_tokenizer")
"""What verl hands over where it runs a reward model of its own."""


def compute_score(
    data_source: Any = None,
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Any = None,
    **given: Any,
) -> float:
    """The score. Raises UserError where `extra_info` holds no prompt."""
    return compute_rewards(data_source, solution_str, ground_truth, extra_info, **given)[SCORE]


def compute_rewards(
    data_source: Any = None,  # noqa: ARG001 - verl's own signature
    solution_str: str = "",
    ground_truth: Any = None,  # noqa: ARG001
    extra_info: Any = None,
    **given: Any,
) -> dict[str, float]:
    """`score`, each objective, and `scored`: for GDPO, and to be logged. Raises UserError where `extra_info` holds no prompt."""
    asked = _rewarder(given)
    return asked.numbers(asked.rows([_conversation(solution_str, extra_info)])[0])


async def compute_score_async(
    data_source: Any = None,
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Any = None,
    **given: Any,
) -> float:
    """`compute_score` for verl's event loop."""
    return (await compute_rewards_async(data_source, solution_str, ground_truth, extra_info, **given))[SCORE]


async def compute_rewards_async(
    data_source: Any = None,  # noqa: ARG001 - verl's own signature
    solution_str: str = "",
    ground_truth: Any = None,  # noqa: ARG001
    extra_info: Any = None,
    **given: Any,
) -> dict[str, float]:
    """`compute_rewards` for verl's event loop."""
    asked = _rewarder(given)
    (row,) = await asked.rows_async([_conversation(solution_str, extra_info)])
    return asked.numbers(row)


def _rewarder(given: dict[str, Any]) -> Rewarder:
    return rewarder(settings_of({name: value for name, value in given.items() if name not in VERLS}))


def _conversation(answer: str, extra_info: Any) -> Any:
    prompt = prompt_in(extra_info, *KEYS)
    if prompt is None:
        raise UserError(
            f"extra_info holds no prompt under {', '.join(KEYS)}, and without one there is no score: write the prompt's messages "
            "into the data set's column extra_info as `messages`"
        )
    return from_text(prompt, answer)
