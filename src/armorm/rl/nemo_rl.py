"""An environment for NeMo-RL: the score, or one reward for each objective (GDPO).

In: message logs.  Out: what `EnvironmentInterface.step` returns.  Cost: one pass for each batch.

    from armorm.rl import nemo_rl
    nemo_rl.register("armorm")     # then `env: {armorm: {model: …, multi: true}}`, and `env_name: armorm` for the data

`RewardEnvironment` (as a ray actor, made when it is first asked for) is what NeMo-RL starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

import torch

from armorm.conversation import entries_of
from armorm.errors import MissingExtra, UserError
from armorm.rl.conversations import with_written_prompt
from armorm.rl.rewarder import SCORE, column, rewarder
from armorm.rl.settings import check_names, settings_of

PREFIX = "reward/"


class RewardStep:
    """What the environment does, without NeMo-RL. `multi` in its config asks for a reward per objective.

    Other keys are those of `Settings`, each in place of the environment's. Raises UserError for one that is none.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        check_names(config, others=("multi",))
        multi = config.get("multi")
        if multi is not None and not isinstance(multi, bool):
            raise UserError(f"multi is {multi!r:.200}: give true or false")
        self.settings = settings_of({name: config[name] for name in config if name != "multi"})
        self.multi = bool(multi)

    def step(self, message_log_batch: Any, metadata: Iterable[Any]) -> Any:
        """Every episode ends with its score; what can't be scored gets the number that the settings name."""
        from nemo_rl.environments.interfaces import EnvironmentReturn

        n = len(message_log_batch)
        rewards = self.rewards(message_log_batch)
        scores = rewards if isinstance(rewards, torch.Tensor) else next(iter(rewards.values()))
        named = get_type_hints(EnvironmentReturn)["rewards"] is not torch.Tensor
        return EnvironmentReturn(
            observations=[{"role": "environment", "content": f"Environment: {x:.4f}"} for x in scores.tolist()],
            metadata=list(metadata),
            next_stop_strings=[None] * n,
            rewards=rewards if named or isinstance(rewards, torch.Tensor) else torch.stack([*rewards.values()], dim=1),
            terminateds=torch.ones(n, dtype=torch.bool),
            answers=[str(log[-1].get("content", "")) if len(log) else None for log in message_log_batch],
        )

    def rewards(self, logs: Iterable[Any]) -> torch.Tensor | dict[str, torch.Tensor]:
        """Scores [n]; with `multi` one tensor [n] for each objective, under `reward/NAME`, sorted by name.

        Releases of NeMo-RL that know no names (0.6.0, 0.7.0) get them as columns in this order: `step` reads from the type of
        what it returns which one it is.
        """
        asked = rewarder(self.settings)
        numbers = [asked.numbers(row) for row in asked.rows([_messages(log) for log in logs])]
        if not self.multi:
            return torch.tensor([row[SCORE] for row in numbers])
        names = sorted(asked.source.names(self.settings.part))
        return {PREFIX + name: torch.tensor([row[column(name)] for row in numbers]) for name in names}

    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
        """The batch as it is, with the means of its rewards."""
        called = {name: name for name in batch if isinstance(name, str) and (name == "total_reward" or name.startswith(PREFIX))}
        if self.multi:
            names = sorted(rewarder(self.settings).source.names(self.settings.part))
            called |= {at: PREFIX + name for i, name in enumerate(names) if (at := f"reward{i + 1}") in batch}
        return batch, {f"armorm/{name}/mean": float(batch[at].float().mean()) for at, name in called.items()}

    def shutdown(self) -> bool:
        """Nothing is held that the process's end does not free."""
        return True


def _messages(log: Any) -> Any:
    # NeMo-RL keeps token ids beside each message's text, and its processors write the prompt's text in the policy's template.
    turns = [
        {key: value for key, value in message.items() if not isinstance(value, torch.Tensor)} for message in entries_of(log) or ()
    ]
    return with_written_prompt(turns)


def register(name: str = "armorm") -> None:
    """Make the environment known to NeMo-RL under a name, to run in its own Python. Raises MissingExtra without NeMo-RL."""
    try:
        from nemo_rl.distributed.ray_actor_environment_registry import ACTOR_ENVIRONMENT_REGISTRY
        from nemo_rl.distributed.virtual_cluster import PY_EXECUTABLES
        from nemo_rl.environments.utils import register_env
    except ImportError as error:
        raise _missing() from error
    ACTOR_ENVIRONMENT_REGISTRY[f"{__name__}.RewardEnvironment"] = PY_EXECUTABLES.SYSTEM
    register_env(name, f"{__name__}.RewardEnvironment")


def _missing() -> MissingExtra:
    error = MissingExtra("a NeMo-RL environment", "nemo-rl", "")
    error.args = ("a NeMo-RL environment needs NeMo-RL, which is not installed: run this where NeMo-RL runs",)
    return error


def __getattr__(name: str) -> Any:
    if name != "RewardEnvironment":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import ray
        from nemo_rl.environments.interfaces import EnvironmentInterface
    except ImportError as error:
        raise _missing() from error
    made = ray.remote(type("RewardEnvironment", (RewardStep, EnvironmentInterface), {"__module__": __name__}))
    globals()[name] = made
    return made
