"""The vLLM plugin's parts that need no vLLM: heads without a decoder, columns, a template for pairs, the service, the routes."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
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
from armorm.serving.service import Limits, Overloaded, TimedOut, TooLarge
from armorm.vllm.columns import Columns
from armorm.vllm.config import ServedConfig
from armorm.vllm.endpoints import sums_of
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
    slow: float = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)
    model_config: Any = field(default_factory=lambda: SimpleNamespace(max_model_len=512))

    async def encode(self, prompt: Any, params: _Params, _name: str) -> AsyncIterator[Any]:
        await asyncio.sleep(self.slow)
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
def plays_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    played = {"vllm": types.ModuleType("vllm"), "vllm.inputs": types.ModuleType("vllm.inputs")}
    played["vllm"].PoolingParams, played["vllm.inputs"].TokensPrompt = _Params, dict  # type: ignore[attr-defined]
    for name, module in played.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def service(tiny_model: RewardModel, plays_vllm: None) -> EngineService:
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


def test_deviations_are_told_where_they_are_asked_for(sure: RewardModel, plays_vllm: None):
    service = EngineService(sure, "sure")
    service.start(_Engine(sure))
    expected = sure.engine().score(TALKS, deviations=True)
    for one, own in zip(asyncio.run(service.score(TALKS, deviations=True)), expected, strict=True):
        assert one.std == pytest.approx(own.std, rel=1e-3)
        assert dict(one.reward_std) == pytest.approx(dict(own.reward_std), rel=1e-3)
    assert all((one.std, one.reward_std) == (None, {}) for one in asyncio.run(service.score(TALKS)))


def test_bad_conversations_fail_alone_and_bad_requests_as_a_whole(service: EngineService):
    outcomes = asyncio.run(service.score([TALKS[0], [], "no", TALKS[1]]))
    assert [isinstance(one, ConversationError) for one in outcomes] == [False, True, True, False]
    assert asyncio.run(service.score([])) == []
    for profile, error in (("nobody", "nobody"), (Profile(drop=("nobody",)), "nobody")):
        with pytest.raises(RecipeError, match=error):
            asyncio.run(service.score(TALKS, profile=profile))
    assert len(asyncio.run(service.score(TALKS, max_tokens=10**6))) == len(TALKS)  # the model's own bound holds
    for tokens in (0, "many"):
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


def test_the_service_tells_its_model_by_the_heads_and_the_folders_list(tiny_model: RewardModel, tmp_path: Path):
    assert sums_of(str(tmp_path), None) == ""
    assert sums_of("hub/id", "r1") == "r1"
    (tmp_path / "SHA256SUMS").write_text("listed")
    assert sums_of(str(tmp_path), "r1") == "listed"
    told = [EngineService(tiny_model, name, sums=sums).fingerprint for name, sums in (("a", ""), ("b", ""), ("c", "d"))]
    assert told[0] == told[1] != told[2]


def test_more_than_a_request_may_have_is_refused(service: EngineService):
    service.limits = Limits(answers=2, queue_requests=1, seconds=0.05)
    with pytest.raises(TooLarge, match="at most 2"):
        asyncio.run(service.score(TALKS))
    service._requests = 1
    with pytest.raises(Overloaded):
        asyncio.run(service.score(TALKS[:1]))
    service._requests = 0
    service._engine.slow = 30
    with pytest.raises(TimedOut):
        asyncio.run(service.score(TALKS[:1]))
    assert service._requests == 0


TAKEN = ("/classify", "/rerank", "/v1/models")
"""What vLLM has itself, of the paths that `armorm serve` has."""


@pytest.fixture
def beside_vllm(service: EngineService) -> Iterator[Any]:
    """A client of an application with routes and error handlers of its own, as vLLM's is."""
    fastapi = pytest.importorskip("fastapi")
    testing = pytest.importorskip("fastapi.testclient")
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    from armorm.vllm.endpoints import add_routes

    app = fastapi.FastAPI()
    for path in TAKEN:
        app.add_api_route(path, lambda: "vLLM's own", methods=["GET" if path == "/v1/models" else "POST"])
    add_routes(app, service)
    app.add_exception_handler(RequestValidationError, lambda _request, _error: JSONResponse({"vllm": 400}, 400))
    app.add_exception_handler(HTTPException, lambda _request, error: JSONResponse({"vllm": error.status_code}))
    with testing.TestClient(app) as client:
        yield client


@pytest.fixture
def beside_ours(tiny_model: RewardModel) -> Iterator[Any]:
    """A client of `armorm serve` with the same model."""
    testing = pytest.importorskip("fastapi.testclient")
    pytest.importorskip("prometheus_client")
    from armorm.serving.app import create_app
    from armorm.serving.local import LocalService

    served = LocalService(tiny_model.engine(), "mine", profiles={"careful": PROFILE}, preference=tiny_model.preference)
    with testing.TestClient(create_app(served)) as client:
        yield client


ASKED = [
    ("/v1/rewards", {"conversations": [*TALKS, []], "details": True}),
    ("/v1/rewards", {"messages": TALKS[0][:1], "answers": [talk[1]["content"] for talk in TALKS]}),
    ("/v1/rewards", {"conversations": TALKS, "profile": "careful"}),
    ("/v1/rewards", {"conversations": TALKS, "profile": "nobody"}),
    ("/v1/rewards", {"conversations": TALKS, "profile": {"drop": ["nobody"]}}),
    ("/v1/rewards", {"conversations": TALKS, "model": "another"}),
    ("/v1/rewards", {"conversations": TALKS, "answers": ["a"]}),
    ("/v1/rewards", {"conversations": [[{"role": "user", "content": "hello"}, {"role": "assistant", "content": " "}]]}),
    ("/v1/rewards", {}),
    ("/v1/compare", {"messages": TALKS[0][:1], "a": "fine", "b": "4"}),
    ("/v1/compare", {"messages": TALKS[0][:1], "a": "fine", "b": ""}),
    ("/v1/compare", {"a": "fine"}),
    ("/v1/audit", {"messages": TALKS[0][:1], "answer": "I am fine, thank you. And you?"}),
    ("/v1/profiles/check", {"profile": {"drop": ["nobody"]}}),
    ("/get_reward", {"query": ["no template", ""], "prompts": ["no", ""]}),
    ("/get_reward?unscorable=-1", {"query": ["no template", ""], "prompts": ["no", ""], "labels": None}),
    ("/get_reward", {"query": ["a"], "prompts": []}),
    ("/slime", {"prompt": TALKS[0][:1], "response": "fine"}),
    ("/slime/objectives", {"prompt": "hello", "response": "fine"}),
    ("/slime?profile=nobody", {"prompt": "hello", "response": "fine"}),
    ("/v1/score/evaluation", {"model": "m", "messages": ["no header"], "max_length": 100_000}),
    ("/v1/embeddings", {"input": "no header"}),
    ("/predict", {"inputs": [["hello how are you?", "fine"], ["hello", "4"]]}),
    ("/predict", {"inputs": []}),
]
PASSING = {"request_id", "id"}
"""What no two replies have in common."""


def told(reply: Any, leaf: Callable[[Any], Any] = lambda value: value) -> Any:
    """What a reply says."""
    if isinstance(reply, dict):
        return {key: told(value, leaf) for key, value in reply.items() if key not in PASSING}
    return [told(value, leaf) for value in reply] if isinstance(reply, list) else leaf(reply)


def near(value: Any) -> Any:
    """A number that may differ in its last digits: of raw rewards, which go to tens, two stand before the point."""
    return pytest.approx(value, abs=1e-5, rel=2e-6) if isinstance(value, float) else value


@pytest.mark.parametrize(("path", "body"), ASKED, ids=lambda one: one if isinstance(one, str) else "")
def test_replies_are_those_of_armorm_serve(beside_vllm: Any, beside_ours: Any, path: str, body: Any):
    found, wanted = beside_vllm.post(path, json=body), beside_ours.post(path, json=body)
    assert found.status_code == wanted.status_code, found.text
    assert told(found.json()) == told(wanted.json(), near)


def test_every_protocol_gives_the_scorers_scores(beside_vllm: Any, tiny_model: RewardModel):
    from wire_world import CLIENTS, case_of

    ours = [score.score for score in tiny_model.score(TALKS)]
    cases = [case_of(tiny_model.tokenizer, talk) for talk in TALKS]
    wires = [wire for wire in CLIENTS if not wire.name.startswith("vLLM") and wire.path not in TAKEN]
    assert len(wires) == 7
    for wire in wires:
        found = [wire.read(beside_vllm.post(wire.path, json=wire.body(case)).json()) for case in cases]
        assert found == pytest.approx(ours, abs=1e-5), wire.name


def test_what_vllm_has_stays_its_own(beside_vllm: Any):
    assert beside_vllm.get("/v1/models").json() == "vLLM's own"
    assert beside_vllm.post("/classify", json={"text": ["a"]}).json() == "vLLM's own"
    assert beside_vllm.post("/rerank", json={"query": "a", "texts": ["a"]}).json() == "vLLM's own"
    assert beside_vllm.post("/score", json={}).json() == {"vllm": 404}  # vLLM's protocol is vLLM's
    assert beside_vllm.get("/v1/basis").json()["model"] == "mine"
    assert "text/html" in beside_vllm.get("/").headers["content-type"]


def test_a_request_is_known_by_the_id_that_its_client_gave(beside_vllm: Any):
    given = beside_vllm.post("/v1/rewards", json={}, headers={"X-Request-Id": "r-7"}).json()
    assert given["error"]["request_id"] == "r-7"
    odd = beside_vllm.post("/v1/rewards", json={}, headers={"X-Request-Id": "a b"}).json()
    assert len(odd["error"]["request_id"]) == 32
