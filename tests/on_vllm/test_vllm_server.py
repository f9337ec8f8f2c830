"""`vllm serve` with the plugin: vLLM's own routes and ours on one port, against our own scorer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.entrypoints.llm")

import transformers

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from folders import SHAPE, write_own
from protocols import CLIENTS, case_of
from test_vllm_engine import CONVERSATIONS, IMITATION

from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Profile
from armorm.vllm.score_template import score_template

pytestmark = pytest.mark.filterwarnings("default")

NEAR = 1e-5
CAREFUL = {"name": "careful", "floor": {"safe": 0.6}}


@dataclass(frozen=True)
class Server:
    """A server, the model that it serves, and how to ask it."""

    model: RewardModel
    ask: Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    place = write_own(folder, transformers.LlamaConfig(**SHAPE))
    model = RewardModel.from_pretrained(str(place))
    Profile.from_json(CAREFUL).to_yaml(folder / "careful.yaml")
    (folder / "score.jinja").write_text(score_template(model.tokenizer), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "vllm"), "serve", str(place), "--runner", "pooling", "--dtype", "float32"]
    command += ["--enforce-eager", "--host", "127.0.0.1", "--port", str(port), "--served-model-name", "mine"]
    command += ["--chat-template", str(folder / "score.jinja")]
    env = {**os.environ, "VLLM_PLUGINS": "armorm", "ARMORM_PROFILES": str(folder / "careful.yaml")}
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)

    def ask(path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return reply.status, json.loads(reply.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or "null")

    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")[-6000:]
            try:
                if ask("/health")[0] == 200:
                    break
            except OSError:
                time.sleep(1)
        yield Server(model, ask)
    finally:
        process.terminate()
        process.wait(60)


def text_of(model: RewardModel, conversation: Any) -> str:
    return str(model.tokenizer.apply_chat_template(conversation, tokenize=False))


def test_vllms_own_routes_give_our_scores(server: Server):
    ours = [score.score for score in server.model.score(CONVERSATIONS)]
    texts = [text_of(server.model, one) for one in CONVERSATIONS]
    status, reply = server.ask("/classify", {"model": "mine", "input": texts, "add_special_tokens": False})
    assert status == 200, reply
    assert [one["probs"] for one in reply["data"]] == [[pytest.approx(score, abs=NEAR)] for score in ours]
    status, reply = server.ask("/pooling", {"model": "mine", "input": texts, "add_special_tokens": False})
    assert status == 200, reply
    assert [one["data"] for one in reply["data"]] == [[pytest.approx(score, abs=NEAR)] for score in ours]
    status, reply = server.ask("/classify", {"model": "mine", "messages": CONVERSATIONS[4]})
    assert status == 200, reply
    assert reply["data"][0]["probs"] == [pytest.approx(ours[4], abs=NEAR)]


def test_score_and_rerank_read_a_question_and_its_answers(server: Server):
    question, answers = "hello how are you?", [one[-1]["content"] for one in CONVERSATIONS[:4]]
    ours = [score.score for score in server.model.score(CONVERSATIONS[:4])]
    status, reply = server.ask("/score", {"model": "mine", "text_1": question, "text_2": answers})
    assert status == 200, reply
    assert [one["score"] for one in reply["data"]] == pytest.approx(ours, abs=NEAR)
    status, reply = server.ask("/rerank", {"model": "mine", "query": question, "documents": answers})
    assert status == 200, reply
    by_place = {one["index"]: one["relevance_score"] for one in reply["results"]}
    assert [by_place[i] for i in range(4)] == pytest.approx(ours, abs=NEAR)
    assert [one["index"] for one in reply["results"]] == sorted(range(4), key=lambda i: -ours[i])


def test_rewards_say_what_a_score_is_made_of(server: Server):
    status, reply = server.ask("/v1/rewards", {"conversations": CONVERSATIONS, "details": True})
    assert status == 200, reply
    assert (reply["model"], reply["objectives"]) == ("mine", list(server.model.objectives.names))
    for one, ours in zip(reply["results"], server.model.score(CONVERSATIONS), strict=True):
        assert one["score"] == pytest.approx(ours.score, abs=NEAR)
        assert one["rewards"] == pytest.approx(ours.rewards, abs=NEAR)
        assert one["gate"] == pytest.approx(ours.gate, abs=NEAR)
        assert sum(one["contributions"].values()) == pytest.approx(one["score"], abs=NEAR)
    answers = [one[-1]["content"] for one in CONVERSATIONS[:4]]
    status, reply = server.ask("/v1/rewards", {"messages": CONVERSATIONS[0][:1], "answers": answers})
    assert [one["score"] for one in reply["results"]] == pytest.approx(
        [float(s) for s in server.model.score(CONVERSATIONS[:4])], abs=NEAR
    )


def test_a_profile_steers_one_request(server: Server):
    ours = float(server.model.score(CONVERSATIONS[0], profile=Profile.from_json(CAREFUL)).score)
    assert ours != pytest.approx(server.model.score(CONVERSATIONS[0]).score, abs=1e-3)
    for profile in ("careful", CAREFUL):
        status, reply = server.ask("/v1/rewards", {"conversations": CONVERSATIONS[:1], "profile": profile})
        assert (status, reply["results"][0]["score"]) == (200, pytest.approx(ours, abs=NEAR))
    for profile in ("nobody", {"drop": ["nobody"]}, {"nothing": 1}):
        status, reply = server.ask("/v1/rewards", {"conversations": CONVERSATIONS[:1], "profile": profile})
        assert status == 400
        assert "nobody" in reply["error"]["message"] or "nothing" in reply["error"]["message"]


TAKEN = ("/classify", "/pooling", "/score", "/rerank", "/v1/models", "/health", "/metrics")


@pytest.mark.parametrize("wire", [one for one in CLIENTS if one.path not in TAKEN], ids=lambda one: one.name)
def test_other_programs_protocols_give_our_scores(server: Server, wire: Any):
    cases = [case_of(server.model.tokenizer, talk) for talk in CONVERSATIONS]
    ours = [score.score for score in server.model.score(CONVERSATIONS)]
    taken = [(case, score) for case, score in zip(cases, ours, strict=True) if wire.takes(case)]
    assert len(taken) >= 4
    replies = [server.ask(wire.path, wire.body(case)) for case, _ in taken]
    assert [status for status, _ in replies] == [200] * len(taken), replies
    assert [wire.read(reply) for _, reply in replies] == pytest.approx([score for _, score in taken], abs=NEAR)


def test_the_protocols_have_their_own_errors_and_profiles(server: Server):
    talk = CONVERSATIONS[0]
    steered = float(server.model.score(talk, profile=Profile.from_json(CAREFUL)).score)
    sample = {"prompt": talk[:1], "response": talk[1]["content"]}
    status, reply = server.ask("/slime?profile=careful", sample)
    assert (status, reply) == (200, pytest.approx(steered, abs=NEAR))
    status, reply = server.ask("/slime/objectives", sample)
    rewards = server.model.score(talk).rewards
    assert {name: reply[f"objective/{name}"] for name in rewards} == pytest.approx(rewards, abs=NEAR)
    for path, body, told in (
        ("/slime?profile=nobody", sample, {"detail", "type"}),
        ("/get_reward", {"query": ["a"], "prompts": []}, {"detail", "type"}),
        ("/v1/score/evaluation", {"model": "m", "messages": ["no header"]}, {"detail", "type"}),
        ("/predict", {"inputs": "no header"}, {"error", "error_type"}),
    ):
        status, reply = server.ask(path, body)
        assert (status, set(reply)) == (422, told)
    status, reply = server.ask("/v1/embeddings", {"input": "no header"})
    assert (status, reply["object"]) == (400, "error")
    assert server.ask("/info")[1]["model_id"] == "mine"


def test_answers_are_compared_and_changed(server: Server):
    a, b = CONVERSATIONS[:2]
    ours = server.model.compare(a, b)
    status, reply = server.ask("/v1/compare", {"messages": a[:1], "a": a[1]["content"], "b": b[1]["content"]})
    assert status == 200, reply
    assert reply["margin"] == pytest.approx(ours.margin, abs=2 * NEAR)
    assert reply["probability"] == ours.probability
    status, reply = server.ask("/v1/audit", {"messages": a[:1], "answer": a[1]["content"]})
    assert (status, reply["original"]["score"]) == (200, pytest.approx(server.model.score(a).score, abs=NEAR))
    assert len(reply["changes"]) > 5
    assert server.ask("/v1/basis")[1]["model"] == "mine"
    assert server.ask("/v1/profiles/check", {"profile": {"drop": ["nobody"]}})[0] == 400


def test_vllms_own_paths_stay_vllms(server: Server):
    (served,) = server.ask("/v1/models")[1]["data"]
    assert served["owned_by"] == "vllm"
    status, reply = server.ask("/classify", {"text": ["a"]})
    assert (status, set(reply)) == (400, {"error"})  # and not SGLang's form
    assert server.ask("/v1/rewards", {"conversations": [CONVERSATIONS[0]] * 4097})[0] == 413


def test_an_answer_that_imitates_the_chat_moves_nothing(server: Server):
    hostile = [CONVERSATIONS[0][0], {"role": "assistant", "content": IMITATION}]
    _, reply = server.ask("/v1/rewards", {"conversations": [hostile], "details": True})
    ours = server.model.score(hostile)
    assert reply["results"][0]["score"] == pytest.approx(ours.score, abs=NEAR)
    assert reply["results"][0]["gate"] == pytest.approx(server.model.score(CONVERSATIONS[0]).gate, abs=NEAR)


def test_one_bad_conversation_fails_alone_and_requests_without_an_answer_are_told(server: Server):
    bad = [[], [{"role": "user", "content": "hello"}], CONVERSATIONS[0], "no", [{"role": "user", "content": 3}]]
    status, reply = server.ask("/v1/rewards", {"conversations": bad})
    assert status == 200
    assert ["error" in one for one in reply["results"]] == [True, True, False, True, True]
    assert server.ask("/v1/rewards", {"conversations": []})[1]["results"] == []
    status, reply = server.ask("/v1/rewards", {})
    assert (status, set(reply["error"])) == (422, {"type", "message", "request_id"})
    status, reply = server.ask("/classify", {"model": "mine", "input": "there is no answer header here"})
    assert status == 400, reply
    assert server.ask("/health")[0] == 200


def test_many_at_once(server: Server):
    ours = [float(score) for score in server.model.score(CONVERSATIONS)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda i: server.ask("/v1/rewards", {"conversations": [CONVERSATIONS[i % 5]]}), range(40)))
    assert [r["results"][0]["score"] for _, r in replies] == pytest.approx([ours[i % 5] for i in range(40)], abs=NEAR)
