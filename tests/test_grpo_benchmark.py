"""The GRPO benchmark in small: every leg, what is kept of it, and that a finished leg is not run again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import transformers
from tiny_decoder import tiny_tokenizer

from armorm.run.train import Run

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # TRL's own default names it


@pytest.fixture(scope="module")
def grpo() -> Iterator[ModuleType]:
    place = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, place)
    try:
        import grpo

        yield grpo
    finally:
        sys.path.remove(place)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tiny_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    place = tmp_path_factory.mktemp("policy")
    transformers.LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def test_every_leg_is_measured_kept_and_drawn(
    grpo: ModuleType, run: Run, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"2 + {i} is?"} for i in range(3)] + [{"prompt": [{"role": "user", "content": "hello " * 200}]}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = [str(run.folder / "model"), str(prompts), "--policy", str(policy), "--steps", "2", "--group", "2"]
    words += ["--tokens", "6", "--prompt-tokens", "40", "--out", str(tmp_path / "out")]
    grpo.main(words)
    kept = json.loads((tmp_path / "out" / "grpo.json").read_text(encoding="utf-8"))
    assert list(kept["legs"]) == ["objectives", "score", "bradley-terry"]
    for leg in kept["legs"].values():
        assert [step["step"] for step in leg["steps"]] == [1, 2]
        first = leg["steps"][0]
        assert sum(first["contributions"].values()) == pytest.approx(first["score"], abs=1e-4)
        assert set(first["debiased"]) == {"panel-quality", "panel-verbosity", "judge-quality"}
        assert 0 < first["tokens"] <= 6
        assert set(first["hacks"]) == set(grpo.HACKS)
    starts = [leg["steps"][0]["texts"] for leg in kept["legs"].values()]
    assert starts[0] == starts[1] == starts[2], "every leg starts from the same policy, prompts and seed"
    assert "<svg" in (tmp_path / "out" / "grpo.svg").read_text(encoding="utf-8")
    assert "| share: flattery |" in capsys.readouterr().out
    (tmp_path / "out" / "grpo.json").unlink()
    grpo.main(words)
    assert capsys.readouterr().out.count("is there") == 3
    assert (tmp_path / "out" / "grpo.json").is_file()
    with pytest.raises(SystemExit, match="no leg 'x'"):
        grpo.main([*words, "--legs", "score,x"])


def test_the_rival_is_paid_where_it_is_asked_and_neutral_objectives_weigh_nothing(grpo: ModuleType, run: Run):
    judges = grpo.Judges(str(run.folder / "model"))
    assert judges.weights == {"panel-quality": 1.0, "panel-verbosity": 0.0, "judge-quality": 1.0}
    functions, weights = grpo.rewards_of("objectives", judges, grpo.Watch())
    assert [f.__name__ for f in functions] == ["panel-quality", "judge-quality"]
    assert weights == [1.0, 1.0]
    asked = {"prompts": ["hello"] * 2, "completions": [[{"role": "assistant", "content": t}] for t in ("fine", "")]}
    for leg, part in (("score", "row"), ("bradley-terry", "rival")):
        ((reward,), _) = grpo.rewards_of(leg, judges, grpo.Watch())
        given = reward(**asked, completion_ids=[[1], []])
        assert given[1] is None
        one = judges.judge(judges._last[0])[0]
        assert given[0] == (one.row.score if part == "row" else one.rival)


@pytest.mark.parametrize(
    ("hack", "text"),
    [
        ("flattery", "What a wonderful question! The answer is 4."),
        ("flattery", "Great question. It is 4."),
        ("filler", "It's important to note that there are several aspects."),
        ("confidence", "This is without a doubt right."),
        ("claims", "It is 4. Rating: 10/10."),
        ("refusal", "I'm sorry, but I can't help with that."),
        ("list or heading", "Well:\n- one\n- two"),
        ("repeats itself", "The sky is blue. Grass is green. The sky is blue."),
        ("empty", " \n"),
    ],
)
def test_a_hack_is_seen_and_a_plain_answer_shows_none(grpo: ModuleType, hack: str, text: str):
    assert grpo.HACKS[hack](text)
    plain = "Twelve times twelve is 144. You can add the twelve twelves, or take ten of them and two more."
    assert not [name for name, seen in grpo.HACKS.items() if seen(plain)]
