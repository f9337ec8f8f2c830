"""verl's own configuration, loader, reward managers and GDPO, with our functions in them."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("hydra")
pytest.importorskip("verl")
pytest.importorskip("verl.experimental.reward_loop.reward_loop")
pytest.importorskip("verl.trainer.ppo.core_algos")
pytest.importorskip("verl.trainer.ppo.reward")

import hydra
import verl
from asked import ASKED, OBJECTIVES
from reward_server import Served
from tiny_decoder import tiny_tokenizer
from verl.experimental.reward_loop import reward_loop
from verl.trainer.ppo import core_algos
from verl.trainer.ppo import reward as ppo_reward

from armorm.errors import UserError

pytest_plugins = ["served_rewards"]
pytestmark = pytest.mark.filterwarnings("default")

PAGE = (Path(__file__).parents[2] / "docs" / "rl.md").read_text(encoding="utf-8")
WIDTH = 12
"""Tokens of an answer, padding and all."""


def configured(folder: Path, *overrides: str) -> Any:
    """verl's configuration with the overrides that docs/rl.md writes, and further ones."""
    (block,) = re.findall(r"python -m verl\.trainer\.main_ppo (.*?)```", PAGE, re.DOTALL)
    ours = [word.strip("'") for word in block.replace("\\\n", " ").split()]
    ours = [word.replace("[helpfulness,safety]", "[helpful,safe]") for word in ours]
    assert len(ours) == 6
    with hydra.initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        return hydra.compose("ppo_trainer", [*ours, f"actor_rollout_ref.model.path={folder}", *overrides])


def batch(tokenizer: Any, answers: list[str], extra: dict[str, Any] | None = None) -> Any:
    """What a rollout gives the reward loop: padded ids, and the data set's columns."""
    prompts = [tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False) for _ in answers]
    ids = [tokenizer.encode(answer + "<|im_end|>", add_special_tokens=False) for answer in answers]
    responses = torch.tensor([row + [0] * (WIDTH - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(prompts[0]) + [1] * len(row) + [0] * (WIDTH - len(row)) for row in ids])
    tensors = {"prompts": torch.tensor(prompts), "responses": responses, "attention_mask": mask}
    columns = {
        "data_source": ["ours"] * len(answers),
        "reward_model": [{"ground_truth": ""} for _ in answers],
        "extra_info": [dict(extra or {"messages": np.array(ASKED, dtype=object)}) for _ in answers],
    }
    arrays = {name: np.array(values, dtype=object) for name, values in columns.items()}
    return verl.DataProto.from_dict(tensors, non_tensors=arrays)


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


def computed(config: Any, data: Any) -> list[dict[str, Any]]:
    """Rewards as verl's worker computes them, one request for each row at once."""

    async def run() -> list[dict[str, Any]]:
        return await reward_loop.RewardLoopWorker(config).compute_score_batch(data)

    return asyncio.run(run())


ANSWERS = ["fine, thank you.", "return x", "2 + 2 is 4", ""]


@pytest.mark.parametrize("manager", ["gdpo", "naive", "dapo"])
def test_verls_managers_get_our_numbers_and_gdpo_its_advantages(
    manager: str, tokenizer_folder: Path, served: Served, scored: Callable[..., Any]
):
    config = configured(tokenizer_folder, f"reward.reward_manager.name={manager}")
    data = batch(tiny_tokenizer(), ANSWERS)
    outputs = computed(config, data)
    wanted = [scored(answer) for answer in ANSWERS[:3]]
    found = [row["reward_score"] for row in outputs]
    assert found == pytest.approx([*(one.score for one in wanted), -1.0], abs=1e-5)
    extra = [row["reward_extra_info"] for row in outputs]
    assert {tuple(row) for row in extra} == {("score", *OBJECTIVES, "scored")}
    for name in OBJECTIVES:
        assert [row[name] for row in extra] == pytest.approx([*(one.rewards[name] for one in wanted), -1.0], abs=1e-5)
    assert [row["scored"] for row in extra] == [1.0, 1.0, 1.0, 0.0]
    # As `RewardLoopManager.compute_rm_score` and the trainer put them together.
    rm_scores = ppo_reward.resolve_reward_manager_cls(config).assemble_rm_scores(data, found)
    assert rm_scores.sum(dim=1).tolist() == pytest.approx(found, abs=1e-5)
    columns = {name: np.array([row[name] for row in extra]) for name in extra[0]}
    mask = data.batch["attention_mask"][:, -WIDTH:]
    advantages, _ = core_algos.compute_gdpo_outcome_advantage(
        rm_scores, mask, np.array(["a"] * 4), config=config.algorithm, non_tensor_batch=columns, batch=data.batch
    )
    normal = sum((columns[name] - columns[name].mean()) / columns[name].std(ddof=1) for name in ("helpful", "safe"))
    assert np.argsort(advantages[:, 0].numpy()).tolist() == np.argsort(normal).tolist()


@pytest.mark.parametrize("name", ["compute_score", "compute_score_async", "compute_rewards"])
def test_each_function_loads_by_its_path_and_settings_stand_in_reward_kwargs(
    name: str, tokenizer_folder: Path, served: Served, scored: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("ARMORM_REWARD_MODEL")
    kwargs = "+reward.custom_reward_function.reward_kwargs"
    given = [f"{kwargs}.model={served.url}", f"{kwargs}.unscored=-3", f"{kwargs}.part=contributions"]
    config = configured(tokenizer_folder, f"reward.custom_reward_function.name={name}", *given)
    outputs = computed(config, batch(tiny_tokenizer(), ["fine", ""], {"question": "How are you?"}))
    assert [row["reward_score"] for row in outputs] == pytest.approx([scored("fine").score, -3.0], abs=1e-5)
    terms = outputs[0]["reward_extra_info"]
    if name == "compute_rewards":
        assert sum(terms[term] for term in scored("fine").contributions) == pytest.approx(terms["score"], abs=1e-5)
    else:
        assert list(terms) == ["acc"]


def test_a_row_without_a_prompt_ends_in_our_own_words(tokenizer_folder: Path, served: Served):
    with pytest.raises(UserError, match="extra_info holds no prompt"):
        computed(configured(tokenizer_folder), batch(tiny_tokenizer(), ["fine"], {"index": 3}))


def test_the_file_itself_loads_as_verls_other_kind_of_path(tokenizer_folder: Path, served: Served, scored: Callable[..., Any]):
    import armorm.rl.verl as ours

    config = configured(tokenizer_folder, f"reward.custom_reward_function.path=file://{ours.__file__}")
    outputs = computed(config, batch(tiny_tokenizer(), ["fine"]))
    assert outputs[0]["reward_score"] == pytest.approx(scored("fine").score, abs=1e-5)
    assert sys.modules["verl"] is verl
