"""The vLLM plugin's parts that need no vLLM: heads without a decoder, columns, the template for pairs, the service, the route."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from conftest import Parts
from fixtures.make_released import FOLDER as RELEASED

from armorm.errors import BackboneError, CheckpointError, ConversationError, RecipeError
from armorm.features.extract import pool
from armorm.features.forward import run_whole
from armorm.model.reward_model import RewardModel
from armorm.rendering import Rendered
from armorm.scoring.engine import join_pooled
from armorm.scoring.profile import Profile
from armorm.vllm.columns import Columns
from armorm.vllm.config import ServedConfig
from armorm.vllm.heads import load_heads
from armorm.vllm.score_template import main, score_template
from armorm.vllm.service import EngineService

TALKS = [
    [{"role": "user", "content": "hello how are you?"}, {"role": "assistant", "content": saying}]
    for saying in ("fine", "def f(x): return x", "é 你好 🙂")
]
PROFILE = Profile.from_json({"name": "careful", "floor": {"safe": 0.6}})


@pytest.fixture(scope="module")
def saved(assembled: Callable[..., RewardModel], parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    assembled(*parts).save_pretrained(folder)
    return folder


def test_heads_are_the_models_own(saved: Path):
    for place in (saved, RELEASED):
        whole, heads = RewardModel.from_pretrained(str(place)), load_heads(str(place))
        assert not hasattr(heads, "model")
        ours = dict(heads.named_parameters())
        assert len(ours) >= 6
        assert all(torch.equal(tensor, whole.get_parameter(name)) for name, tensor in ours.items())
        assert heads.gating.scale == whole.gating.scale
        assert heads.config.header_ids == whole.config.header_ids


def test_damaged_heads_are_named(saved: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    tensors = load_file(saved / "model.safetensors")
    save_file({key: value for key, value in tensors.items() if key != "gating.layers.1.bias"}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lack gating\.layers\.1\.bias"):
        load_heads(str(tmp_path))
    with pytest.raises(CheckpointError, match="no such folder"):
        load_heads(str(tmp_path / "nothing"))


def test_vllm_reads_the_decoders_config_and_type_of_numbers(saved: Path):
    config = ServedConfig.from_pretrained(saved)
    assert isinstance(config.get_text_config(), transformers.LlamaConfig)
    assert config.get_text_config().num_hidden_layers == 4
    facts = {**config.to_dict(), "dtype": "float32", "backbone_config": {**config.backbone_config, "dtype": "bfloat16"}}
    assert ServedConfig.from_dict(facts).dtype == torch.bfloat16
    assert ServedConfig.from_dict(ServedConfig.from_dict(facts).to_dict()).dtype == torch.bfloat16


def test_columns_come_apart_as_they_were(tiny_model: RewardModel):
    columns = Columns.of(tiny_model)
    heads = tiny_model.heads(torch.randn(2, 64), torch.randn(2, 64), torch.tensor([3.0, 4.0]))
    joined = columns.join(heads, torch.randn(2, 64))
    assert joined.shape == (2, columns.width)
    apart, feature = columns.split(list(joined), tiny_model.basis.transform)
    assert feature.shape == (2, 0)  # this model knows no uncertainty
    assert apart.members is None
    for one, other in zip(apart[:4], heads[:4], strict=True):
        torch.testing.assert_close(one, other)


def test_the_template_reads_a_question_and_a_document_as_turns(tiny_model: RewardModel, capsys: pytest.CaptureFixture[str]):
    tokenizer = tiny_model.tokenizer
    template = score_template(tokenizer)

    def render(messages: Any) -> str:
        return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False))

    pair = [{"role": "query", "content": "hello how are you?"}, {"role": "document", "content": "fine"}]
    assert render(pair) == render(TALKS[0]) == tokenizer.apply_chat_template(TALKS[0], tokenize=False)
    assert main([]) == main(["/nowhere"]) == 2
    assert "usage" in capsys.readouterr().err


@dataclass
class _Params:
    # vLLM's, as far as the service uses them.
    task: str
    use_activation: bool
    extra_kwargs: dict[str, Any]

    def verify(self, _config: Any) -> None:
        """Nothing."""


@dataclass
class _Engine:
    # vLLM's engine, played by our own decoder.
    model: RewardModel
    silent: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    model_config: Any = field(default_factory=lambda: SimpleNamespace(max_model_len=512))

    async def encode(self, prompt: Any, params: _Params, _name: str) -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        self.asked.append(params.extra_kwargs)
        ids, extra, model = tuple(prompt["prompt_token_ids"]), params.extra_kwargs, self.model
        opens, ends = extra["prompt_length"], extra["prompt_length"] + extra["answer_length"]
        row = Rendered(ids[:opens], ids[opens:ends], ids[ends:])
        prompts, answers = run_whole([row], model.backbone, {"1", "2", "3", "final"})
        response = join_pooled(pool(answers, model.response_spec.parts), model.response_spec)
        heads = model.heads(
            response, join_pooled(pool(prompts, model.prompt_spec.parts), model.prompt_spec), torch.tensor([float(ends - opens)])
        )
        (columns,) = Columns.of(model).join(heads, response)
        yield SimpleNamespace(outputs=SimpleNamespace(data=columns * torch.nan if self.silent else columns))


@pytest.fixture
def service(tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch) -> EngineService:
    played = {"vllm": types.ModuleType("vllm"), "vllm.inputs": types.ModuleType("vllm.inputs")}
    played["vllm"].PoolingParams, played["vllm.inputs"].TokensPrompt = _Params, dict  # type: ignore[attr-defined]
    for name, module in played.items():
        monkeypatch.setitem(sys.modules, name, module)
    made = EngineService(tiny_model, "mine", {"careful": PROFILE})
    made.start(_Engine(tiny_model))
    return made


def test_the_service_gives_the_scorers_scores(service: EngineService, tiny_model: RewardModel):
    for profile in (None, "careful", PROFILE):
        ours = tiny_model.score(TALKS, profile=None if profile is None else PROFILE)
        outcomes = asyncio.run(service.score(TALKS, profile=profile))
        for one, other, talk in zip(outcomes, ours, TALKS, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)
            assert one.gate == pytest.approx(other.gate, abs=1e-5)
            assert one.contributions == pytest.approx(other.contributions, abs=1e-5)
            assert one.tokens == len(tiny_model.renderer.render(talk))
            assert one.profile == other.profile


def test_bad_conversations_fail_alone_and_bad_requests_as_a_whole(service: EngineService):
    outcomes = asyncio.run(service.score([TALKS[0], [], "no", TALKS[1]]))
    assert [isinstance(one, ConversationError) for one in outcomes] == [False, True, True, False]
    assert asyncio.run(service.score([])) == []
    for profile, error in (("nobody", "nobody"), (Profile(drop=("nobody",)), "nobody")):
        with pytest.raises(RecipeError, match=error):
            asyncio.run(service.score(TALKS, profile=profile))
    for tokens in (0, 10**6, "many"):
        with pytest.raises(BackboneError, match="max_tokens"):
            asyncio.run(service.score(TALKS, max_tokens=tokens))  # type: ignore[arg-type]
    service._engine.silent = True
    (silent,) = asyncio.run(service.score(TALKS[:1]))
    assert isinstance(silent, ConversationError)
    assert silent.fault == "not-finite"


def test_an_engine_for_fewer_tokens_bounds_the_conversations(tiny_model: RewardModel, service: EngineService):
    engine = _Engine(tiny_model, model_config=SimpleNamespace(max_model_len=40))
    service.start(engine)
    (long,) = asyncio.run(service.score([[TALKS[0][0], {"role": "assistant", "content": "hello " * 200}]]))
    assert (long.tokens, long.truncated) == (40, True)


def test_the_route_answers_each_conversation(service: EngineService, tiny_model: RewardModel):
    fastapi = pytest.importorskip("fastapi")
    testing = pytest.importorskip("fastapi.testclient")
    from armorm.vllm.rewards import router

    app = fastapi.FastAPI()
    app.include_router(router(service))
    client = testing.TestClient(app)
    ours = tiny_model.score(TALKS)
    reply = client.post("/v1/rewards", json={"conversations": [*TALKS, []], "details": True}).json()
    assert (reply["model"], reply["objectives"]) == ("mine", ["helpful", "safe", "verbosity"])
    assert [one.get("score") for one in reply["results"]] == [*[pytest.approx(s.score, abs=1e-5) for s in ours], None]
    assert set(reply["results"][0]) == {
        "index", "score", "tokens", "truncated", "rewards", "raw_rewards", "gate", "terms", "contributions", "std",
    }  # fmt: skip
    assert reply["results"][3]["error"]["type"] == "not-messages"
    answers = client.post("/v1/rewards", json={"messages": TALKS[0][:1], "answers": [t[1]["content"] for t in TALKS]}).json()
    assert [one["score"] for one in answers["results"]] == [pytest.approx(s.score, abs=1e-5) for s in ours]
    for wrong in ({}, {"conversations": TALKS, "answers": ["a"]}, {"conversations": TALKS, "profile": "nobody"}):
        assert client.post("/v1/rewards", json=wrong).status_code == 400
