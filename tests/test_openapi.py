"""What /openapi.json says is what the server does: no fault of its own, whatever is asked; replies of a form that is told there.

`ARMORM_SCHEMA_EXAMPLES=2000 pytest tests/test_openapi.py` asks longer.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.python import asgi

from armorm.fit.preference import Preference
from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Profile
from armorm.serving.app import create_app
from armorm.serving.local import LocalService

EXAMPLES = int(os.environ.get("ARMORM_SCHEMA_EXAMPLES", "15"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ASKED = (
    "POST /v1/rewards",
    "POST /v1/compare",
    "POST /v1/audit",
    "POST /v1/profiles/check",
    "POST /get_reward",
    "POST /slime",
    "POST /slime/objectives",
    "POST /v1/score/evaluation",
    "POST /pooling",
    "POST /score",
    "POST /v1/rerank",
    "POST /v1/embeddings",
    "POST /predict",
    "POST /classify",
    "POST /rerank",
)
TOLD = ("GET /v1/models", "GET /v1/basis", "GET /info", "GET /healthz", "GET /readyz", "GET /metrics")
JSON = {"content-type": "application/json"}
OTHERS = ("text/plain", "application/x-www-form-urlencoded")


# schemathesis ends an application's lifespan with each test, and a service that has ended stays so.


@pytest.fixture
def service(tiny_model: RewardModel) -> LocalService:
    profiles = {"careful": Profile(name="careful", fix={"safe": 0.5})}
    known = Preference("logistic", pairs=100, prompts=50, slope=2.0)
    return LocalService(tiny_model.engine(), "tiny", profiles=profiles, preference=known)


@pytest.fixture
def app(service: LocalService) -> Any:
    return create_app(service)


@pytest.fixture
def operations(app: Any) -> Mapping[str, Any]:
    """Every operation by its method and path."""
    found = [result.ok() for result in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations()]
    return {operation.label: operation for operation in found}


@pytest.fixture
def client(app: Any) -> Iterator[Any]:
    """A client in this process, on the same event loop as all others here."""
    with asgi.get_client(app) as client:
        yield client


def test_these_are_all_operations(operations: Mapping[str, Any]):
    assert set(operations) == {*ASKED, *TOLD}


def test_no_route_tells_of_a_form_that_it_has_not(app: Any):
    described = app.openapi()
    assert "HTTPValidationError" not in json.dumps(described)
    for path, methods in described["paths"].items():
        for facts in methods.values():
            statuses = set(facts["responses"])
            assert {"200", "408", "413", "429", "500"} <= statuses, path
            assert all("content" in reply for reply in facts["responses"].values()), path
    vllm = set(described["paths"]["/pooling"]["post"]["responses"])
    assert "400" in vllm
    assert "422" not in vllm
    assert "424" in described["paths"]["/predict"]["post"]["responses"]


@pytest.mark.parametrize("label", TOLD)
def test_what_is_told_has_the_form_that_is_told(operations: Mapping[str, Any], label: str):
    operations[label].Case().call_and_validate(checks=CHECKS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as told", "otherwise"])
@pytest.mark.parametrize("label", ASKED)
def test_every_body_has_a_reply_of_a_form_that_is_told(operations: Mapping[str, Any], label: str, mode: Any):
    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()


# -- what no schema makes --------------------------------------------------------------------------------------------------------

PLACE = "@here@"
HOSTILE = (
    *("null", "true", "-1", "0.5", "1e400", "-1e400", "1e308", "NaN", "-Infinity", "9" * 400, "9" * 5000, "-0"),
    *('""', '"\\ud800"', '"\\u0000"', '" "', '"<|im_start|>assistant\\n"', f'"{"x" * 5000}"', '"careful"', '"1e400"'),
    *(
        "[]",
        "{}",
        "[[]]",
        "[null]",
        '["\\ud800"]',
        "[[[1]]]",
        '{"\\ud800": 1}',
        '{"": null}',
        '{"name": "\\ud800"}',
        '[[1, "a"]]',
    ),
    *("[" * 150 + "]" * 150, '{"a": ' * 150 + "1" + "}" * 150, "[" * 960 + "]" * 960, '{"a": 1, "a": 2}', "[9e99, -9e99]"),
)


def changed_at(body: Any) -> Iterator[Any]:
    """The body with each of its parts in turn replaced, and with one more key."""
    yield PLACE
    if isinstance(body, dict):
        yield {**body, "more": PLACE}
        for key in body:
            for inner in changed_at(body[key]):
                yield {**body, key: inner}
    elif isinstance(body, list):
        for i in range(len(body)):
            for inner in changed_at(body[i]):
                yield [*body[:i], inner, *body[i + 1 :]]


def example_of(described: Any, facts: Any) -> Any:
    """A body that OpenAPI shows for a route; one that fits, where it shows none."""
    schema = facts["requestBody"]["content"]["application/json"]["schema"]
    while "oneOf" in schema or "anyOf" in schema:
        schema = schema.get("oneOf", schema.get("anyOf"))[0]
    named = described["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
    hello = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}]
    return (named.get("examples") or [{"messages": hello}])[0]


def check_form(operation: Any, reply: Any) -> None:
    """A reply's form; the validator itself reads no half letters, which JSON can hold."""
    reply.json()
    if "\\ud800" not in reply.text:
        operation.validate_response(reply)


@pytest.mark.parametrize("label", ASKED)
def test_hostile_json_is_answered_as_told(app: Any, client: Any, operations: Mapping[str, Any], label: str):
    described, path = app.openapi(), label.partition(" ")[2]
    facts = described["paths"][path]["post"]
    written = [json.dumps(body) for body in changed_at(example_of(described, facts))]
    bodies = [text.replace(f'"{PLACE}"', value) for text in written for value in HOSTILE]
    assert len(bodies) > 100
    bodies = random.Random(label).sample(bodies, min(len(bodies), 4 * EXAMPLES))
    for body in bodies:
        reply = client.post(path, data=body.encode(), headers=JSON)
        assert reply.status_code < 500, (body[:300], reply.text)
        assert str(reply.status_code) in facts["responses"], (body[:300], reply.text)
        check_form(operations[label], reply)


@pytest.mark.parametrize("label", ASKED)
def test_what_is_no_json_is_answered_as_told(app: Any, client: Any, operations: Mapping[str, Any], label: str):
    path = label.partition(" ")[2]
    told = app.openapi()["paths"][path]["post"]["responses"]
    raw = (b"", b"{", b"\xff\xfe", b"\xed\xa0\x80", b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}", b"[" * 50_000, b'{"a": ' * 300, b"\x00")
    for body in (*raw, b"x" * 70_000, "{}".encode("utf-16")):
        for headers in (JSON, JSON | {"content-encoding": "gzip"}, *({"content-type": kind} for kind in OTHERS)):
            reply = client.post(path, data=body, headers=headers)
            assert 400 <= reply.status_code < 500, (body[:50], headers, reply.text)
            assert str(reply.status_code) in told
            check_form(operations[label], reply)


def post(client: Any, path: str, text: str) -> Any:
    return client.post(path, data=text.encode(), headers=JSON)


def test_a_key_that_stands_twice_is_named(client: Any):
    for path in ("/v1/rewards", "/v1/profiles/check", "/slime", "/classify"):
        reply = post(client, path, '{"messages": [], "messages": [1]}')
        assert reply.status_code in (400, 422)
        assert "stands twice" in reply.text


def test_no_depth_is_a_fault_of_the_servers(client: Any):
    """What Python can read and no more is the worst: something behind the reader goes a step deeper."""
    asked = '"messages": [{"role": "user", "content": "hello"}]'
    for depth in (99, 101, 198, 250, *range(900, 1010, 5), 5000):
        nest = '{"a": ' * depth + "1" + "}" * depth
        for path, more in (("/v1/rewards", '"answers": ["x"]'), ("/v1/audit", '"answer": "x"')):
            reply = post(client, path, f'{{{asked}, {more}, "profile": {nest}}}')
            assert reply.status_code == 400, (path, depth, reply.text)
        reply = post(client, "/v1/profiles/check", f'{{"profile": {nest}}}')
        assert reply.status_code == 400, (depth, reply.text)
    deep = "[" * 150 + "]" * 150  # deeper than any conversation: its own fault alone
    talk = f'[{{"role": "user", "content": "hello"}}, {{"role": "assistant", "content": {deep}}}]'
    fine = '[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}]'
    results = post(client, "/v1/rewards", f'{{"conversations": [{talk}, {fine}]}}').json()["results"]
    assert ["error" in one for one in results] == [True, False]


def test_half_a_letter_in_what_is_echoed_is_written_as_json_can(
    client: Any, service: LocalService, monkeypatch: pytest.MonkeyPatch
):
    prose = "Hello, how are you? It is fine. Thank you for that. All of it is hello. Return to user."
    asked = f'{{"messages": [{{"role": "user", "content": "hello"}}], "answer": "{prose}", "other": "\\ud800"}}'
    reply = post(client, "/v1/audit", asked)
    assert reply.status_code == 200
    (odd,) = (one for one in reply.json()["changes"] if one["answer"] == "\ud800")
    assert odd["result"]["error"]["type"] == "not-utf8"
    assert post(client, "/v1/profiles/check", '{"profile": {}, "name": "\\ud800"}').status_code < 500
    monkeypatch.setattr(service, "name", "models/\udcff")  # as a folder's name that is no UTF-8 comes to Python
    for path in ("/v1/basis", "/v1/models", "/info"):
        assert client.get(path).status_code == 200
    assert post(client, "/v1/audit", asked).json()["model"] == "models/\udcff"


def test_a_profile_is_small_on_every_route(client: Any):
    long = json.dumps({"description": "x" * 20_000})
    asked = '"messages": [{"role": "user", "content": "hello"}]'
    for path, body in (
        ("/v1/rewards", f'{{{asked}, "answers": ["x"], "profile": {long}}}'),
        ("/v1/audit", f'{{{asked}, "answer": "x", "profile": {long}}}'),
        ("/v1/profiles/check", f'{{"profile": {long}}}'),
        ("/v1/profiles/check", json.dumps({"text": "description: " + "x" * 20_000})),
    ):
        reply = post(client, path, body)
        assert reply.status_code == 400, path
        assert "larger than 16,384 letters" in reply.json()["error"]["message"]


def test_an_audit_of_another_model_is_refused(client: Any):
    reply = post(client, "/v1/audit", '{"model": "other", "messages": [{"role": "user", "content": "hello"}], "answer": "x"}')
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "unknown-model")
