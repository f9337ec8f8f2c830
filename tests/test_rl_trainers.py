"""Each trainer's own call, as its sources make it: OpenRLHF, verl, slime, AReaL, verifiers, NeMo-RL, ms-swift.

Keywords and what is done with the answer are those of OpenRLHF 0.11.2, verl 0.9.1, slime 0.3.1, AReaL 1.0.4, verifiers 0.4.0,
NeMo-RL 0.6.0 (and its main branch) and ms-swift 4.6.0. None of them is installed here; the few lines that each needs of its own
stand in for it. tests/on_trainers runs the own code of four.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from reward_server import Served, reward_server
from tiny_decoder import TEMPLATE
from wire_world import EngineService, client_of

from armorm.errors import MissingExtra, UserError
from armorm.model.reward_model import RewardModel
from armorm.rl import areal, nemo_rl, openrlhf, slime, trl, verifiers, verl
from armorm.rl.conversations import joined
from armorm.rl.settings import Settings

ASKED = [{"role": "user", "content": "How are you?"}]
TEMPLATED = "<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n"
OBJECTIVES = ["helpful", "safe", "verbosity"]


@pytest.fixture(scope="module")
def serving(tiny_model: RewardModel) -> Iterator[Served]:
    with reward_server(tiny_model) as served:
        yield served


@pytest.fixture(autouse=True)
def settings(serving: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMORM_REWARD_MODEL", serving.url)
    for name in ("PROFILE", "PART", "OBJECTIVES"):
        monkeypatch.delenv(f"ARMORM_REWARD_{name}", raising=False)
    monkeypatch.delenv("ARMORM_UNSCORED", raising=False)


@pytest.fixture(scope="module")
def score_of(tiny_model: RewardModel) -> Callable[[str], float]:
    return lambda answer: tiny_model.score(joined(ASKED, answer)).score


def loaded_from(path: str) -> ModuleType:
    """As OpenRLHF and ms-swift load a file."""
    spec = importlib.util.spec_from_file_location("reward_func", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- OpenRLHF: openrlhf/utils/agent.py, trainer/ppo_utils/samples_generator.py ---------------------------------------------------


def test_openrlhf_loads_the_file_and_takes_tensors(score_of: Callable[[str], float]):
    reward_func = loaded_from(str(openrlhf.__file__)).reward_func
    for answer in ("fine, thank you.", "\n\nfine", ""):
        info = reward_func([f"{TEMPLATED}{answer}<|im_end|>"], [TEMPLATED], ["label"])
        want = score_of(answer) if answer else -1.0
        assert torch.tensor([info["rewards"]]).tolist() == pytest.approx([want], abs=1e-5)
        logs = {key: torch.tensor([value.flatten()[0].item()]) for key, value in info["extra_logs"].items()}
        assert list(logs) == [*OBJECTIVES, "scored"]
        assert logs["scored"].item() == float(bool(answer))
    assert reward_func([], [], [])["rewards"].shape == (0,)
    many = reward_func([TEMPLATED + "fine", TEMPLATED + "return x"], prompts=[TEMPLATED] * 2, labels=[None] * 2)
    assert many["scores"].shape == many["extra_logs"]["safe"].shape == (2,)


def test_an_openrlhf_query_that_its_prompt_does_not_begin_has_no_score(score_of: Callable[[str], float]):
    queries, prompts = ["ong question?The answer", TEMPLATED + "fine"], ["A long question?", TEMPLATED]
    for form in (list, tuple, np.array, pa.array):
        info = openrlhf.reward_func(form(queries), form(prompts), form(["", ""]))
        assert info["rewards"].tolist() == pytest.approx([-1.0, score_of("fine")], abs=1e-5)
        assert info["extra_logs"]["scored"].tolist() == [0.0, 1.0]


def test_openrlhfs_file_and_the_servers_route_give_the_same_score(
    tiny_model: RewardModel, assembled: Any, parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    default = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    model = assembled(*parts)
    model.tokenizer.chat_template = default + TEMPLATE
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("ARMORM_REWARD_MODEL", str(tmp_path / "model"))
    prompts = [TEMPLATED, "How are you?", "<|im_start|>user\n  Hi \n<|im_end|>\n<|im_start|>assistant\n", "a <|im_start|> b"]
    queries = [prompt + "fine<|im_end|>" for prompt in prompts]
    body = {"query": queries, "prompts": prompts, "labels": [""] * 4}
    reply = client_of(EngineService(model)).post("/get_reward?unscorable=-1", json=body).json()
    found = openrlhf.reward_func(queries, prompts, [""] * 4)["rewards"].tolist()
    assert found == pytest.approx(reply["rewards"], abs=1e-5)
    said = {"role": "assistant", "content": "fine"}
    spaced = [{"role": "user", "content": "  Hi \n"}, said]
    want = [model.score([*ASKED, said]).score] * 2 + [model.score(spaced).score, -1.0]
    assert found == pytest.approx(want, abs=1e-5)
    assert want[0] != pytest.approx(tiny_model.score([*ASKED, said]).score, abs=1e-4), "the template's own system turn counts"


# -- verl: verl/trainer/ppo/reward.py, experimental/reward_loop/reward_manager/{naive,gdpo}.py -----------------------------------


def verl_manager(compute_score: Any, reward_kwargs: dict[str, Any]) -> Callable[..., Any]:
    """What verl makes of a function (`get_custom_reward_fn`), and how a manager calls it."""
    asynchronous = inspect.iscoroutinefunction(compute_score)
    wrapped = partial(compute_score, **reward_kwargs)

    async def run(answer: str, extra_info: Any) -> Any:
        given = {"data_source": "d", "solution_str": answer, "ground_truth": "", "extra_info": extra_info}
        if asynchronous:
            return await wrapped(**given)
        return await asyncio.get_running_loop().run_in_executor(None, lambda: wrapped(**given))

    return lambda answer, extra: asyncio.run(run(answer, extra))


@pytest.mark.parametrize("name", ["compute_score", "compute_score_async"])
def test_verl_gets_a_number(name: str, score_of: Callable[[str], float]):
    module = importlib.import_module("armorm.rl.verl")  # pkg://armorm.rl.verl
    run = verl_manager(getattr(module, name), {})
    for extra in ({"messages": np.array(ASKED)}, {"question": "How are you?", "num_turns": 1}, {"prompt": ASKED}):
        assert run("fine", extra) == pytest.approx(score_of("fine"), abs=1e-5)
    assert run("", {"question": "How are you?"}) == -1.0
    with pytest.raises(UserError, match="extra_info holds no prompt under messages, prompt"):
        run("fine", {"index": 3})


@pytest.mark.parametrize("name", ["compute_score", "compute_score_async"])
def test_verls_answers_may_carry_the_token_that_ended_them(name: str, score_of: Callable[[str], float]):
    run, want = verl_manager(getattr(verl, name), {}), pytest.approx(score_of("fine"), abs=1e-5)
    for extra in ({"messages": ASKED}, {"question": "How are you?"}, {"prompt": TEMPLATED}):
        assert run("fine<|im_end|>", extra) == want
        assert run("fine<|im_end|>\n", extra) == want
    assert run("<|im_end|>", {"messages": ASKED}) == -1.0


def test_columns_of_different_length_are_told():
    for prompts, answers, told in ((["a", "b"], ["c"], "2 queries, 1 prompts"), (None, ["c"], "queries is NoneType")):
        with pytest.raises(UserError, match=told):
            openrlhf.reward_func(prompts, answers, ["l"])


@pytest.mark.parametrize("name", ["compute_rewards", "compute_rewards_async"])
def test_verl_gets_the_same_keys_in_all_rows_for_gdpo(name: str, score_of: Callable[[str], float]):
    run = verl_manager(getattr(verl, name), {"unscored": -2.0, "part": "contributions"})
    one, other, none = (run(answer, {"question": "How are you?"}) for answer in ("fine", "\n\nreturn x", ""))
    keys = [*OBJECTIVES, "response-tokens"]  # gdpo_reward_keys
    assert list(one) == list(other) == list(none) == ["score", *keys, "scored"]
    assert [none[key] for key in ("score", *keys)] == [-2.0] * 5
    columns = {key: torch.tensor(np.asarray([row[key] for row in (one, other, none)], dtype=np.float32)) for key in one}
    assert columns["score"][0].item() == pytest.approx(score_of("fine"), abs=1e-5)
    assert torch.isfinite(torch.stack(list(columns.values()))).all()


def test_verls_keyword_arguments_take_the_environments_place(serving: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ARMORM_REWARD_MODEL")
    run = verl_manager(verl.compute_rewards, {"model": serving.url, "part": "contributions", "unscored": -7.0})
    rows = [run(answer, {"question": "How are you?"}) for answer in ("fine", "")]
    assert list(rows[0]) == list(rows[1]) == ["score", *OBJECTIVES, "response-tokens", "scored"]
    assert sum(rows[0][name] for name in (*OBJECTIVES, "response-tokens")) == pytest.approx(rows[0]["score"])
    assert rows[1]["score"] == rows[1]["response-tokens"] == -7.0


def test_what_is_given_to_verl_acts_or_is_refused_by_name():
    verls = {"reward_router_address": "h:1", "reward_model_tokenizer": None}
    run = verl_manager(verl.compute_rewards, {"unscored": -7.0, "model": None, **verls})
    assert run("", {"question": "How are you?"})["safe"] == -7.0
    for wrong, told in (("modell", "did you mean 'model'"), ("profil", "did you mean 'profile'"), ("multi", "there are model")):
        for fn in (verl.compute_score, verl.compute_rewards_async):
            with pytest.raises(UserError, match=f"no setting '{wrong}'; {told}"):
                verl_manager(fn, {wrong: "x"})("fine", {"question": "How are you?"})


# -- slime: slime/rollout/rm_hub/__init__.py -------------------------------------------------------------------------------------


def slime_sample(answer: str, prompt: Any = TEMPLATED, **metadata: Any) -> Any:
    return SimpleNamespace(prompt=prompt, response=answer, label=None, metadata=metadata, custom_rm_path=None)


def test_slime_gets_one_or_many(score_of: Callable[[str], float]):
    args = SimpleNamespace(reward_key=None, custom_rm_path="armorm.rl.slime.reward")
    assert inspect.iscoroutinefunction(slime.reward)
    one = asyncio.run(slime.reward(args, slime_sample("fine")))
    assert one == pytest.approx(score_of("fine"), abs=1e-5)
    many = [slime_sample("fine", ASKED), slime_sample("", "How are you?"), slime_sample("return x", "odd", messages=ASKED)]
    assert asyncio.run(slime.reward(args, many)) == pytest.approx([one, -1.0, score_of("return x")], abs=1e-5)
    assert asyncio.run(slime.reward(args, [])) == []


def test_messages_and_samples_may_stand_in_any_ordered_collection(score_of: Callable[[str], float]):
    args, want = SimpleNamespace(reward_key=None), pytest.approx(score_of("fine"), abs=1e-5)
    for form in (tuple, lambda x: np.array(x, dtype=object), pa.array):
        assert areal.reward("odd", "fine", [1], [2], messages=form(ASKED)) == want
        assert verl.compute_score("d", "fine", "", {"messages": form(ASKED)}) == want
        assert asyncio.run(slime.reward(args, slime_sample("fine", "odd", messages=form(ASKED)))) == want
        assert asyncio.run(slime.reward(args, slime_sample("fine", form(ASKED)))) == want
        turns = [MappingProxyType(turn) for turn in joined(ASKED, "fine")]
        assert asyncio.run(verifiers.score(SimpleNamespace(messages=tuple(turns)))) == want
        assert trl.score(form([ASKED]), form(["fine"])) == trl.score(form(["How are you?"]), form(["fine"])) == [want]
    assert trl.score([TEMPLATED], ["fine"]) == [want], "a text in a template is no question of the user's"
    samples = np.array([slime_sample("fine"), slime_sample("")], dtype=object)
    for many in (samples, tuple(samples)):
        assert asyncio.run(slime.reward(args, many)) == [want, -1.0]


def test_slime_gets_a_dict_where_it_has_a_key(score_of: Callable[[str], float]):
    found = asyncio.run(slime.reward(SimpleNamespace(reward_key="safe"), slime_sample("fine"), evaluation=False))
    assert list(found) == ["score", *OBJECTIVES, "scored"]
    assert found["score"] == pytest.approx(score_of("fine"), abs=1e-5)


# -- AReaL: areal/api/reward_api.py, workflow/rlvr.py ----------------------------------------------------------------------------


def test_areal_calls_it_in_a_pool_of_processes(score_of: Callable[[str], float]):
    assert pickle.loads(pickle.dumps(areal.reward)) is areal.reward
    call = partial(areal.reward, TEMPLATED, "fine<|im_end|>", [1, 2], [3], messages=ASKED, answer="4")
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        assert pool.submit(call).result(30) == pytest.approx(score_of("fine"), abs=1e-5)
    assert areal.reward(TEMPLATED, "fine<|im_end|>", [1], [2]) == pytest.approx(score_of("fine"), abs=1e-5)
    assert areal.reward(TEMPLATED, "<|im_end|>", [1], [2]) == -1.0
    named = {"prompt": TEMPLATED, "completions": "fine", "prompt_ids": [1], "completion_ids": [2]}
    columns = {"prompt": "another", "completions": ["one"], "prompt_ids": [3]}
    for found in (areal.reward(**named, answer="4"), areal.reward(TEMPLATED, "fine", [1], [2], **columns)):
        assert found == pytest.approx(score_of("fine"), abs=1e-5)


# -- verifiers: verifiers/v1/task.py, utils/decorators.py ------------------------------------------------------------------------


class Turn:
    """A message of verifiers', which is a pydantic model."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def model_dump(self, *, exclude_none: bool) -> dict[str, Any]:
        return {k: v for k, v in self.values.items() if not (exclude_none and v is None)}


def test_verifiers_gets_named_rewards_of_a_trace(tiny_model: RewardModel, score_of: Callable[[str], float]):
    asked = Turn(role="user", content="How are you?")
    trace = SimpleNamespace(messages=[asked, Turn(role="assistant", content="fine", tool_calls=None)])
    want = score_of("fine")
    assert asyncio.run(verifiers.score(trace=trace)) == pytest.approx(want, abs=1e-5)
    terms = asyncio.run(verifiers.contributions(trace=trace))
    assert sum(terms.values()) == pytest.approx(want, abs=1e-5)
    assert list(asyncio.run(verifiers.objectives(trace=trace))) == OBJECTIVES
    for fn in (verifiers.score, verifiers.contributions, verifiers.objectives):
        assert list(inspect.signature(fn).parameters) == ["trace"]
    call = {"id": "1", "type": "function", "name": "f", "arguments": "{}"}
    tools = [asked, Turn(role="assistant", content=None, tool_calls=[call]), Turn(role="tool", tool_call_id="1", content="4")]
    for messages in ([asked], [], tools):
        empty = SimpleNamespace(messages=messages)
        assert asyncio.run(verifiers.score(trace=empty)) == -1.0
        assert asyncio.run(verifiers.contributions(trace=empty)) == {"unscored": -1.0}
        assert asyncio.run(verifiers.objectives(trace=empty)) == {}


# -- NeMo-RL: nemo_rl/environments/{interfaces,utils}.py, algorithms/advantage_estimator.py --------------------------------------


class EnvironmentReturn(NamedTuple):
    observations: Any
    metadata: Any
    next_stop_strings: Any
    rewards: torch.Tensor | dict[str, torch.Tensor]
    terminateds: Any
    answers: Any


class ReleasedReturn(NamedTuple):
    """That of the releases 0.6.0 and 0.7.0, which know no rewards by name."""

    observations: Any
    metadata: Any
    next_stop_strings: Any
    rewards: torch.Tensor
    terminateds: Any
    answers: Any


class EnvironmentInterface:
    pass


@pytest.fixture
def nemo(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The parts of NeMo-RL and ray that an environment meets."""
    known: dict[str, Any] = {"python": {}, "envs": {}}
    parts: dict[str, dict[str, Any]] = {
        "ray": {"remote": lambda cls: cls},
        "nemo_rl": {},
        "nemo_rl.environments": {},
        "nemo_rl.distributed": {},
        "nemo_rl.environments.interfaces": {
            "EnvironmentReturn": EnvironmentReturn,
            "EnvironmentInterface": EnvironmentInterface,
        },
        "nemo_rl.environments.utils": {"register_env": known["envs"].__setitem__},
        "nemo_rl.distributed.virtual_cluster": {"PY_EXECUTABLES": SimpleNamespace(SYSTEM="python")},
        "nemo_rl.distributed.ray_actor_environment_registry": {"ACTOR_ENVIRONMENT_REGISTRY": known["python"]},
    }
    for name, values in parts.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    nemo_rl.__dict__.pop("RewardEnvironment", None)
    return known


def log_of(answer: str) -> list[dict[str, Any]]:
    return [{**m, "token_ids": torch.ones(3)} for m in joined(ASKED, answer)]


def test_nemo_rl_steps_with_scores_or_a_dict_of_objectives(nemo: dict[str, Any], score_of: Callable[[str], float]):
    nemo_rl.register("armorm")
    name = nemo["envs"]["armorm"]
    assert nemo["python"][name] == "python"
    home, _, attribute = name.rpartition(".")
    environment = getattr(importlib.import_module(home), attribute)
    assert issubclass(environment, EnvironmentInterface)
    logs = [log_of("fine"), log_of("return x"), log_of("")]
    step = environment({}).step(logs, [None] * 3)
    assert step.rewards.tolist() == pytest.approx([score_of("fine"), score_of("return x"), -1.0], abs=1e-5)
    assert step.terminateds.all()
    assert step.answers == ["fine", "return x", ""]
    assert {len(field) for field in step} == {3}
    several = environment({"multi": True, "unscored": -1.5, "model": "" or None}).step(logs, [None] * 3)
    assert sorted(several.rewards) == [f"reward/{name}" for name in sorted(OBJECTIVES)]
    assert {tuple(x.shape) for x in several.rewards.values()} == {(3,)}
    batch = {"total_reward": torch.tensor([1.0, 2.0]), "reward/safe": torch.tensor([0.0, 1.0]), "idx": [0, 1]}
    same, metrics = environment({}).global_post_process_and_metrics(batch)
    assert same is batch
    assert metrics == {"armorm/total_reward/mean": 1.5, "armorm/reward/safe/mean": 0.5}


def test_nemo_rls_releases_get_objectives_as_columns(
    nemo: dict[str, Any], tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.modules["nemo_rl.environments.interfaces"], "EnvironmentReturn", ReleasedReturn)
    logs = [log_of("fine"), log_of("")]
    assert nemo_rl.RewardStep({}).step(logs, [None] * 2).rewards.shape == (2,)
    several = nemo_rl.RewardStep({"multi": True})
    rewards = several.step(logs, [None] * 2).rewards
    want = tiny_model.score(joined(ASKED, "fine")).rewards
    assert rewards.tolist() == [pytest.approx([want[name] for name in sorted(OBJECTIVES)], abs=1e-5), [-1.0] * 3]
    batch = {"total_reward": rewards.sum(dim=1), **{f"reward{i + 1}": rewards[:, i] for i in range(3)}, "reward9": rewards[:, 0]}
    metrics = several.global_post_process_and_metrics(batch)[1]
    assert list(metrics) == ["armorm/total_reward/mean", *(f"armorm/reward/{name}/mean" for name in sorted(OBJECTIVES))]
    assert metrics["armorm/reward/safe/mean"] == pytest.approx((want["safe"] - 1) / 2, abs=1e-5)


def test_a_prompt_that_nemo_rls_processors_wrote_in_the_template_is_the_messages(tiny_model: RewardModel):
    system = {"role": "system", "content": "Be kind."}
    say = {"role": "assistant", "content": "fine"}
    written = {"role": "user", "content": TEMPLATED}
    first = {"role": "system", "content": "<|im_start|>system\nBe kind.<|im_end|>\n"}
    two = {"role": "user", "content": first["content"].replace("kind", "brief") + TEMPLATED}
    quoted = {"role": "user", "content": "What is " + TEMPLATED}
    logs = [[written, say], [first, written, say], [first, two, say], [quoted, say], [*ASKED, say], np.array([written, say])]
    both = {"role": "system", "content": "Be kind.\n\nBe brief."}
    talks = [[*ASKED, say], [system, *ASKED, say], [both, *ASKED, say], [quoted, say], [*ASKED, say], [*ASKED, say]]
    ended = [written, {**say, "content": "fine<|im_end|>"}]
    logs, talks = [*logs, ended], [*talks, [*ASKED, say]]
    found = nemo_rl.RewardStep({}).rewards(logs)
    assert isinstance(found, torch.Tensor)
    assert found.tolist() == pytest.approx([tiny_model.score(talk).score for talk in talks], abs=1e-5)


def test_nemo_rls_config_acts_beside_the_environment_or_is_refused_by_name(serving: Served):
    step = nemo_rl.RewardStep({"multi": True, "part": "contributions", "unscored": -9})
    assert step.settings == Settings(serving.url, part="contributions", unscored=-9.0)
    rewards = step.rewards([log_of("")])
    assert {name: x.tolist() for name, x in rewards.items()}["reward/response-tokens"] == [-9.0]
    for wrong, told in (({"profil": "p"}, "'profil'; did you mean 'profile'"), ({"mutli": 1}, "'mutli'; did you mean 'multi'")):
        with pytest.raises(UserError, match=told):
            nemo_rl.RewardStep(wrong)
    with pytest.raises(UserError, match="multi is 'false': give true or false"):
        nemo_rl.RewardStep({"multi": "false"})


def test_without_nemo_rl_the_environment_says_so():
    nemo_rl.__dict__.pop("RewardEnvironment", None)
    for ask in (nemo_rl.register, lambda: nemo_rl.RewardEnvironment):
        with pytest.raises(MissingExtra, match="where NeMo-RL runs"):
            ask()
    assert not hasattr(nemo_rl, "Other")


# -- ms-swift: swift/rewards/{orm,rm_plugin}.py, rl_core/grpo_algorithm.py -------------------------------------------------------


class ORM:
    def __init__(self, args: Any = None, **_: Any) -> None:
        self.args = args


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> Any:
    """ms-swift's registries."""
    home, rewards = ModuleType("swift"), ModuleType("swift.rewards")
    rewards.__dict__.update(ORM=ORM, orms={"format": ORM}, rm_plugins={})
    for module in (home, rewards):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "armorm.rl.ms_swift", raising=False)
    monkeypatch.setenv("ARMORM_REWARD_OBJECTIVES", "safe, helpful")
    importlib.import_module("armorm.rl.ms_swift")
    yield rewards
    sys.modules.pop("armorm.rl.ms_swift", None)


def test_ms_swift_calls_what_the_plugin_registered(
    swift: Any, tiny_model: RewardModel, score_of: Callable[[str], float], monkeypatch: pytest.MonkeyPatch
):
    assert set(swift.orms) == {"format", "armorm", "armorm_safe", "armorm_helpful"}
    messages = [joined(ASKED, answer) for answer in ("fine", "\n\nreturn x", "")]
    columns = {"trainer_state": None, "messages": messages, "solution": ["", "", ""]}
    completions = [m[-1]["content"] for m in messages]
    scores = swift.orms["armorm"](args=None)(completions, **columns)
    assert scores[:2] == pytest.approx([score_of("fine"), score_of("\n\nreturn x")], abs=1e-5)
    assert scores[2] is None
    for form in (tuple, lambda x: np.array(x, dtype=object), pa.array):
        given = [form(turns) for turns in messages]
        assert swift.orms["armorm"](args=None)(form(completions), messages=given) == scores
        assert swift.orms["armorm"](args=None)(form(completions), prompts=form([ASKED] * 3)) == scores
    safe = swift.orms["armorm_safe"](args=None)
    assert type(safe).__name__ == "armorm_safe", "ms-swift logs under the class's name"
    assert safe(completions, **columns)[0] == pytest.approx(tiny_model.score(messages[0]).rewards["safe"], abs=1e-5)
    plugin = swift.rm_plugins["armorm"](model=tiny_model, template=None)
    rewards = plugin(inputs=[{"messages": m} for m in [*messages, None]], **columns)
    assert rewards == pytest.approx([*scores, None], abs=1e-5)
    monkeypatch.setenv("ARMORM_UNSCORED", "-2")
    assert plugin(inputs=[{"messages": m} for m in messages])[2] == -2.0


def test_without_ms_swift_the_plugin_says_so():
    sys.modules.pop("armorm.rl.ms_swift", None)
    with pytest.raises(MissingExtra, match="where ms-swift runs"):
        importlib.import_module("armorm.rl.ms_swift")


def test_no_module_shadows_the_program_that_it_is_for(tmp_path: Path):
    # Within the package a trainer's name still means the trainer.
    for module in (openrlhf, verl, slime, areal, verifiers, nemo_rl):
        assert module.__name__ == f"armorm.rl.{Path(str(module.__file__)).stem}"
    assert importlib.import_module("trl").__name__ == "trl"
