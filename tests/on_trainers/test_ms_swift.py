"""ms-swift's own GRPO trainer, two steps on a tiny policy, paid by the functions that our plugin registers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

pytest.importorskip("swift.rl_core.data", exc_type=ImportError)
pytest.importorskip("swift.rl_core.grpo_algorithm", exc_type=ImportError)
pytest.importorskip("swift.rewards", exc_type=ImportError)
pytest.importorskip("swift.utils", exc_type=ImportError)

from asked import ASKED
from reward_server import Served
from swift import rewards
from swift import utils as swift_utils
from swift.rl_core import data
from swift.rl_core import grpo_algorithm as algorithm

from armorm.model.reward_model import RewardModel
from armorm.rl.conversations import joined

pytest_plugins = ["served_rewards"]
pytestmark = pytest.mark.filterwarnings("default")

ANSWERS = ["fine, thank you.", "return x", ""]


@pytest.fixture
def plugin(tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's plugin file."""
    monkeypatch.setenv("ARMORM_REWARD_OBJECTIVES", "helpful,safe")
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("armorm.rl.ms_swift", None)
    (tmp_path / "plugin.py").write_text("import armorm.rl.ms_swift  # plugin.py\n", encoding="utf-8")
    yield tmp_path / "plugin.py"
    sys.modules.pop("armorm.rl.ms_swift", None)


def samples() -> list[Any]:
    return [data.GRPOSample(messages=joined(ASKED, answer)) for answer in ANSWERS]


def test_the_plugins_functions_and_model_fill_ms_swifts_matrix(plugin: Path, tiny_model: RewardModel, scored: Callable[..., Any]):
    swift_utils.import_external_file(str(plugin))
    functions = [rewards.orms[name](args=None) for name in ("armorm", "armorm_helpful", "armorm_safe")]
    module = rewards.rm_plugins["armorm"](model=tiny_model, template=None)
    found = algorithm.score_completions(
        samples(), [*functions, tiny_model], [None, None, None, module], use_gym_env=False, device=torch.device("cpu")
    )
    assert found.shape == (3, 4)
    for row, answer in zip(found.tolist(), ANSWERS[:2], strict=False):
        one = scored(answer)
        assert row == pytest.approx([one.score, one.rewards["helpful"], one.rewards["safe"], one.score], abs=1e-5)
    assert found[2].isnan().all(), "what can't be scored has no reward"


def test_two_steps_of_grpo(
    plugin: Path, tmp_path: Path, random_folder: Callable[..., Path], served: Served, monkeypatch: pytest.MonkeyPatch
):
    cli = pytest.importorskip("swift.pipelines.train.rlhf", exc_type=ImportError)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    base = random_folder(transformers.LlamaConfig(**shape, num_key_value_heads=4, tie_word_embeddings=True))
    policy = transformers.LlamaForCausalLM.from_pretrained(base)
    policy.save_pretrained(base)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join([json.dumps({"messages": ASKED})] * 4), encoding="utf-8")
    served.forget()
    words = (
        f"--rlhf_type grpo --model {base} --model_type llama --template chatml --tuner_type full --torch_dtype float32 "
        f"--dataset {rows} --external_plugins {plugin} --reward_funcs armorm armorm_helpful armorm_safe --num_generations 2 "
        f"--per_device_train_batch_size 2 --gradient_accumulation_steps 1 --max_steps 2 --max_completion_length 8 --use_hf true "
        f"--output_dir {tmp_path / 'out'} --report_to none --save_strategy no --logging_steps 1 --load_from_cache_file false "
        "--dataset_num_proc 1 --dataloader_num_workers 0 --gradient_checkpointing false --use_vllm false"
    )
    found = cli.rlhf_main(words.split())
    logged = [entry for entry in found.get("log_history", []) if "reward" in entry]
    assert len(logged) == 2
    assert all(f"rewards/{name}/mean" in entry for entry in logged for name in ("armorm", "armorm_helpful", "armorm_safe"))
    assert served.bodies
