"""TRL's trainers with this package's rewards: two steps each, and what a reward function gives for every kind of row."""

from __future__ import annotations

import asyncio
import importlib
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers
from reward_server import reward_server
from tiny_decoder import tiny_tokenizer

from armorm.errors import UserError
from armorm.model.reward_model import RewardModel
from armorm.rl import trl as ours
from armorm.rl.rewarder import rewarder
from armorm.rl.settings import Settings

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # TRL's own default names it
PROMPTS = [[{"role": "user", "content": text}] for text in ("How are you?", "2 + 2 is?")]


@pytest.fixture(scope="module")
def folder(tiny_model: RewardModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reward") / "model"
    tiny_model.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that speaks: one block, width 16."""
    tokenizer = tiny_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    place = tmp_path_factory.mktemp("policy")
    transformers.LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def trained(
    kind: str, policy: Path, rewards: Any, place: Path, *, conversational: bool = True, **more: Any
) -> list[dict[str, Any]]:
    """The log of two steps."""
    rows = PROMPTS * 2 if conversational else [p[0]["content"] for p in PROMPTS] * 2
    small = eval(f"dict({SMALL})")
    trainer = getattr(trl, f"{kind}Trainer")(
        model=str(policy),
        reward_funcs=rewards,
        args=getattr(trl, f"{kind}Config")(output_dir=str(place), **small, **more),
        train_dataset=datasets.Dataset.from_dict({"prompt": rows}),
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "reward" in entry]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many conversations each pass of the decoder was asked for."""
    from armorm.scoring.engine import Engine

    counted: list[int] = []
    whole = Engine.score

    def count(self: Any, conversations: Any, **more: Any) -> Any:
        counted.append(len(conversations))
        return whole(self, conversations, **more)

    monkeypatch.setattr(Engine, "score", count)
    return counted


SMALL = (
    "max_steps=2, per_device_train_batch_size=4, num_generations=2, max_completion_length=6, logging_steps=1, use_cpu=True, "
    "bf16=False, report_to='none', save_strategy='no', disable_tqdm=True"
)


def test_grpo_with_a_function_for_each_objective_as_the_page_shows_it(
    folder: Path, policy: Path, tmp_path: Path, passes: list[int]
):
    page = (Path(__file__).parents[1] / "docs" / "rl.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "GRPOTrainer" in b)
    changes = {
        "runs/mine/model": str(folder),
        "HuggingFaceTB/SmolLM2-135M-Instruct": str(policy),
        "runs/grpo": str(tmp_path),
        "max_steps=20": SMALL,
        "helpfulness": "helpful",
        "safety": "safe",
    }
    for old, new in changes.items():
        assert old in block
        block = block.replace(old, new)
    told: dict[str, Any] = {}
    exec(block, told)
    assert [r.__name__ for r in told["rewards"]] == ["helpful", "safe"]
    log = [entry for entry in told["trainer"].state.log_history if "reward" in entry]
    assert len(log) == 2
    assert {"rewards/helpful/mean", "rewards/safe/mean", "contribution/verbosity", "unscored"} <= set(log[0])
    assert len(passes) == 2, "the decoder ran once for a batch, not once for each function"
    assert max(passes) <= 4


def test_rloo_and_the_score_from_a_server(tiny_model: RewardModel, policy: Path, tmp_path: Path):
    with reward_server(tiny_model) as served:
        rewards = ours.reward_functions(served.url, objectives=["safe"], score=True, asynchronous=True)
        log = trained("RLOO", policy, list(rewards), tmp_path, conversational=False)
        bodies = served.bodies[1:]  # the first asks for names
    assert {"rewards/score/mean", "rewards/safe/mean"} <= set(log[0])
    assert len(bodies) == len(log) == 2
    assert len(bodies[0]["conversations"]) <= 4


def test_the_command_lines_way_to_name_a_function(folder: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # As trl/scripts/grpo.py does with `--reward_funcs armorm.rl.trl.score armorm.rl.trl.objective_safe`.
    monkeypatch.setenv("ARMORM_REWARD_MODEL", str(folder))
    named = ["armorm.rl.trl.score", "armorm.rl.trl.objective_safe"]
    found = [getattr(importlib.import_module(n.rpartition(".")[0]), n.rpartition(".")[2]) for n in named]
    (entry, *_) = trained("GRPO", policy, found, tmp_path, log_completions=True)
    assert {"rewards/score/mean", "rewards/safe/mean", "contribution/helpful", "unscored"} <= set(entry)


def log_of() -> tuple[dict[str, list[Any]], Callable[[str, list[Any]], None]]:
    columns: dict[str, list[Any]] = {}
    return columns, lambda name, values: columns.setdefault(name, []).extend(values)


def test_completions_of_every_kind_score_or_give_none(folder: Path, tiny_model: RewardModel, caplog: pytest.LogCaptureFixture):
    say = {"role": "assistant"}
    completions: list[Any] = [
        [{**say, "content": "fine, thank you."}],
        [{**say, "content": "\n\nfine"}],
        [{**say, "content": ""}],
        [{**say, "content": "I look."}, {"role": "tool", "name": "f", "content": "4"}, {**say, "content": "It is 4"}],
        [{**say, "content": "I look."}, {"role": "tool", "name": "f", "content": "4"}],
        [],
    ]
    extra, log_extra = log_of()
    metrics: dict[str, float] = {}
    (reward,) = ours.reward_functions(str(folder), objectives=[], score=True)
    with caplog.at_level(logging.WARNING):
        given = reward(
            prompts=[PROMPTS[0]] * 6,
            completions=completions,
            completion_ids=[[1]] * 6,
            trainer_state=None,
            environments=None,
            answer=["4"] * 6,
            log_extra=log_extra,
            log_metric=metrics.__setitem__,
        )
    assert [x is None for x in given] == [False, False, True, False, True, True]
    assert given[0] == pytest.approx(tiny_model.score([*PROMPTS[0], *completions[0]]).score, abs=1e-5)
    assert sum(values[0] for values in extra.values()) == pytest.approx(given[0])
    assert set(extra) == {f"contribution/{term}" for term in tiny_model.basis.terms}
    assert {len(values) for values in extra.values()} == {6}
    assert metrics["unscored"] == 0.5
    assert "3 of 6" in caplog.text


def test_only_the_first_of_a_trainers_functions_logs(folder: Path):
    extra, log_extra = log_of()
    for reward in ours.reward_functions(str(folder), score=True):
        reward(prompts=["a", "b"], completions=["fine", "return x"], log_extra=log_extra)
    assert {len(values) for values in extra.values()} == {2}


def test_contributions_sum_to_the_score(folder: Path):
    score, *terms = ours.reward_functions(str(folder), part="contributions", score=True)
    asked = {"prompts": ["a", "b"], "completions": ["fine", "return x"]}
    parts = [term(**asked) for term in terms]
    assert [sum(column) for column in zip(*parts, strict=True)] == pytest.approx(score(**asked))
    assert [t.__name__ for t in terms] == ["helpful", "safe", "verbosity", "response-tokens"]


def test_functions_go_through_a_pickle_and_still_share_a_model(folder: Path):
    reward = ours.reward_functions(str(folder), objectives=["safe"], asynchronous=True)[0]
    again = pickle.loads(pickle.dumps(reward))
    assert (again.__name__, again.settings, again.logs) == ("safe", reward.settings, True)
    assert rewarder(again.settings) is rewarder(reward.settings)
    asked = {"prompts": ["a"], "completions": ["fine"]}
    assert asyncio.run(again(**asked)) == asyncio.run(reward(**asked))
    assert pickle.loads(pickle.dumps(ours.score)).settings is None


def test_trl_tells_ours_apart(folder: Path):
    from trl.trainer.utils import get_callable_name, is_async_callable

    sync, both = ours.reward_functions(str(folder), objectives=["safe"], score=True)
    assert (get_callable_name(sync), get_callable_name(both)) == ("score", "safe")
    assert not is_async_callable(sync)
    assert is_async_callable(ours.async_score)
    assert is_async_callable(ours.async_objective_safe)


def test_names_that_are_none_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="no 'nice' among the rewards; there are helpful, safe, verbosity"):
        ours.reward_functions(str(folder), objectives=["nice"])
    monkeypatch.setenv("ARMORM_REWARD_MODEL", str(folder))
    with pytest.raises(UserError, match="no 'nice' among the rewards"):
        ours.objective_nice(prompts=["a"], completions=["fine"])
    for name in ("nice", "objective_", "async_", "__path__", "async_nice"):
        assert not hasattr(ours, name)
    with pytest.raises(UserError, match="objectives is 'safe': give a list of names"):
        ours.reward_functions(str(folder), objectives="safe")


def test_columns_that_do_not_fit_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARMORM_REWARD_MODEL", str(folder))
    for prompts, told in ((["a", "b"], "2 prompts, 1 completions"), (None, "prompts is NoneType"), ("a", "prompts is str")):
        with pytest.raises(UserError, match=told):
            ours.score(prompts=prompts, completions=["c"])
        with pytest.raises(UserError, match=told):
            asyncio.run(ours.async_score(prompts=prompts, completions=["c"]))


def test_a_settings_object_may_be_given(folder: Path):
    (reward,) = ours.reward_functions(Settings(str(folder), unscored=-3.0), objectives=["safe"])
    assert reward(prompts=["a"], completions=[""]) == [-3.0]
    (reward,) = ours.reward_functions(Settings(str(folder)), objectives=["safe"], unscored=-4.0)
    assert reward(prompts=["a"], completions=[""]) == [-4.0]
    for model in (str(folder), Settings(str(folder))):
        with pytest.raises(UserError, match="no setting 'profil'; did you mean 'profile'"):
            ours.reward_functions(model, profil="p")
