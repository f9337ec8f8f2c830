"""ms-swift's rewards: importing this registers them, as an external plugin does.

In: ms-swift's registries.  Out: reward functions `armorm` (the score) and `armorm_NAME` for each objective that the environment
names, and the reward model plugin `armorm`.  Cost: nothing until the first batch.

    # plugin.py, for `swift rlhf --rlhf_type grpo --external_plugins plugin.py --reward_funcs armorm armorm_helpfulness`
    import armorm.rl.ms_swift

Workers that load data import plugins too, so nothing is loaded here, and the objectives' names come from the environment. (A file
of this package's own folder is no plugin: ms-swift puts a plugin's folder in front of all others, and `trl` would be ours.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from armorm.conversation import entries_of
from armorm.errors import MissingExtra
from armorm.rl.conversations import plain
from armorm.rl.settings import named_objectives, unscored_number
from armorm.rl.trl import Reward

try:
    from swift.rewards import ORM, orms, rm_plugins
except ImportError as error:
    missing = MissingExtra("a plugin for ms-swift", "ms-swift", "")
    missing.args = ("a plugin for ms-swift needs ms-swift, which is not installed: import this where ms-swift runs",)
    raise missing from error


class RewardFunction(ORM):
    """A reward function; subclasses name their objective. ms-swift calls it with completions and the rows' columns."""

    objective: str | None = None

    def __call__(self, completions: Any, messages: Iterable[Any] | None = None, **columns: Any) -> list[float | None]:
        prompts = columns.get("prompts") if messages is None else [_prompt(turns) for turns in messages]
        return Reward(None, self.objective)([""] * len(completions) if prompts is None else prompts, completions)


class RewardPlugin:
    """`--reward_model PATH --reward_model_plugin armorm`: the rows' messages, scored as this package scores them.

    The model that ms-swift loaded is asked itself; no profile of the environment's holds for it, `ARMORM_UNSCORED` does.
    """

    def __init__(self, model: Any, template: Any = None) -> None:
        self.model, self.template = model, template

    def __call__(self, inputs: Iterable[Any], **_: Any) -> list[float | None]:
        scores = self.model.engine().score([row.get("messages") for row in inputs]).scores.tolist()
        unscored = unscored_number()
        return [unscored if score != score else score for score in scores]


def register() -> None:
    """Put everything into ms-swift's registries."""
    for name in (None, *named_objectives()):
        label = "armorm" if name is None else f"armorm_{name}"
        orms[label] = type(label, (RewardFunction,), {"objective": name, "__module__": __name__})
    rm_plugins["armorm"] = RewardPlugin


def _prompt(turns: Any) -> list[Any]:
    # ms-swift's messages end with the completion.
    listed = entries_of(plain(turns)) or []
    return listed[:-1] if listed and listed[-1].get("role") == "assistant" else listed


register()
