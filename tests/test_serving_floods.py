"""Bodies that are costly to refuse: they are refused soon, in little memory, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from armorm.model.reward_model import RewardModel
from armorm.serving.app import create_app
from armorm.serving.door import routes_of
from armorm.serving.local import LocalService
from armorm.user_json import JsonFault, Most, read_json

LONGEST_STALL = 1.0
"""Seconds of work for which the server may answer nobody."""
MIB = 2**20


@pytest.fixture(scope="module")
def app(tiny_model: RewardModel) -> Any:
    return create_app(LocalService(tiny_model.engine(), "tiny"))


# -- on a server -----------------------------------------------------------------------------------------------------------------


def many(value: str, n: int) -> str:
    """A list of this value, so many times."""
    return f"[{','.join([value] * n)}]"


NUMBERS, FITTING = many("1.5", 10**6), 200_000
"""More values than a request may hold; and so many that it may hold them."""
EMPTY, WORD = '""', '"a"'
KEYS, FEWER_KEYS = (",".join(f'"k{i}":0' for i in range(n)) for n in (300_000, 200_000))
FLOODS = {
    "floats": ("/classify", f'{{"input": {NUMBERS}}}', 413),
    "fewer floats": ("/classify", f'{{"input": {many("1.5", FITTING)}}}', 400),
    "words among ids": ("/classify", f'{{"input": [{"1," * FITTING}"a"]}}', 400),
    "lists of floats": ("/classify", f'{{"input": {many("[1.5]", FITTING // 2)}}}', 400),
    "lists": ("/classify", f'{{"input": {many("[]", 10**6)}}}', 413),
    "messages": ("/pooling", f'{{"messages": {many("3", FITTING)}}}', 400),
    "ids": ("/v1/embeddings", f'{{"input": {many("1.5", FITTING)}}}', 400),
    "native texts": ("/classify", f'{{"text": {many("3", FITTING)}}}', 400),
    "documents": ("/rerank", f'{{"query": "a", "documents": {many("3", FITTING)}}}', 400),
    "parts": ("/score", f'{{"text_1": "a", "text_2": {{"content": {many("3", FITTING)}}}}}', 400),
    "texts": ("/rerank", f'{{"query": "a", "texts": {many("3", FITTING)}}}', 422),
    "inputs": ("/predict", f'{{"inputs": {many("3", FITTING)}}}', 422),
    "prompt": ("/slime", f'{{"prompt": {many("3", FITTING)}, "response": "a"}}', 422),
    "queries": ("/get_reward", f'{{"query": {NUMBERS}, "prompts": []}}', 413),
    "fewer queries": ("/get_reward", f'{{"query": {many("1", FITTING)}, "prompts": []}}', 422),
    "evaluated": ("/v1/score/evaluation", f'{{"model": "m", "messages": {many("3", FITTING)}}}', 422),
    "audited": ("/v1/audit", f'{{"answer": "a", "messages": {many("3", FITTING)}}}', 422),
    "unknown keys": ("/v1/rewards", f"{{{KEYS}}}", 413),
    "fewer unknown keys": ("/v1/rewards", f"{{{FEWER_KEYS}}}", 413),
    "keys of a part": ("/score", f'{{"text_1": "a", "text_2": {{{FEWER_KEYS}}}}}', 413),
    "a key that stands twice": ("/v1/rewards", f'{{{KEYS}, "k299999": 1}}', 413),
    "a text that never ends": ("/v1/rewards", "[" * 300 + '"' + '\\"' * 10**6, 400),
    "answers": ("/v1/rewards", f'{{"messages": [], "answers": {many(EMPTY, FITTING)}}}', 413),
    "more answers": ("/v1/rewards", f'{{"messages": [], "answers": {many(EMPTY, 10**6)}}}', 413),
    "conversations": ("/v1/rewards", f'{{"conversations": {many("[]", 100_000)}}}', 413),
    "pairs": ("/get_reward", f'{{"query": {many(WORD, 100_000)}, "prompts": {many(WORD, 100_000)}}}', 413),
    "pairs of vLLM's": ("/score", f'{{"text_1": "a", "text_2": {many(WORD, FITTING)}}}', 413),
    "documents of vLLM's": ("/rerank", f'{{"query": "a", "documents": {many(WORD, FITTING)}}}', 413),
    "texts of TEI's": ("/rerank", f'{{"query": "a", "texts": {many(WORD, FITTING)}}}', 413),
    "texts of vLLM's": ("/classify", f'{{"input": {many(WORD, FITTING)}}}', 413),
    "texts of SGLang's": ("/classify", f'{{"text": {many(WORD, FITTING)}}}', 413),
    "pairs of TEI's": ("/predict", f'{{"inputs": {many(f"[{WORD}]", 100_000)}}}', 413),
}


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """What other tests have left in this process is not looked through, which takes a second by itself."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_refused_and_nobody_waits_for_it(app: Any, flood: str):
    path, body, status = FLOODS[flood]
    assert len(body) < 4 * MIB
    stalls: list[float] = []

    async def beat() -> None:
        while True:
            before = time.process_time()  # what others on the machine do is no matter
            await asyncio.sleep(0.005)
            stalls.append(time.process_time() - before)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test", timeout=60) as client:
            beating = asyncio.create_task(beat())
            try:
                async with asyncio.timeout(60):
                    return await client.post(path, content=body.encode(), headers={"content-type": "application/json"})
            finally:
                beating.cancel()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with only_new_garbage():
        reply = asyncio.run(ask())
    assert reply.status_code == status, reply.text
    assert max(stalls) < LONGEST_STALL
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024
    assert len(reply.text) < 5000


def lists_in(schema: Any) -> Iterator[dict[str, Any]]:
    """Every list of a core schema whose items are checked."""
    if isinstance(schema, dict):
        if schema.get("type") == "list" and schema.get("items_schema", {"type": "any"})["type"] != "any":
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from lists_in(part)


def test_every_list_of_a_body_is_left_at_its_first_fault(app: Any):
    """One list that goes on collects a fault for each item and each form that it might have."""
    fields = [route.body_field for route in routes_of(app.routes) if getattr(route, "body_field", None) is not None]
    assert len(fields) == 17
    schemas = [field._type_adapter.core_schema for field in fields]
    found = [one for schema in schemas for one in lists_in(schema)]
    assert len(found) > 40
    assert all(one.get("fail_fast") for one in found)


def test_that_test_can_fail():
    class Body(BaseModel):
        words: list[str] | None

    assert [one.get("fail_fast") for one in lists_in(Body.__pydantic_core_schema__)] == [None]


# -- as text ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[1, 2, 3]", ""),
        ("[1, 2, 3, 4]", "too-many-values"),
        ("[[[[[1]]]]]", "too-many-values"),
        ('["a,b,[c,{d", "\\",,,,", "e"]', ""),
        ('{"a": 1, "b": 2}', ""),
        ('{"a": 1, "b": 2, "c": 3}', "too-many-keys"),
        ('[{"a": 1, "a": 2}]', "repeated-key"),
        ('["a,b,c,d,e', "not-json"),
    ],
)
def test_values_and_keys_are_counted(text: str, fault: str):
    if not fault:
        assert read_json(text, most=Most(4, 2)) == json.loads(text)
        return
    with pytest.raises(JsonFault) as told:
        read_json(text, most=Most(4, 2))
    assert told.value.name == fault


@pytest.mark.parametrize("text", ["[" * 300 + '"' + '\\"' * 10**6, f'{{{KEYS}, "k299999": 1}}'], ids=["no end", "twice"])
def test_what_is_no_json_is_told_in_the_time_of_one_reading(text: str):
    before = time.perf_counter()
    with pytest.raises(JsonFault):
        read_json(text)
    assert time.perf_counter() - before < 5


def test_too_long_a_number_is_told_in_our_words():
    with pytest.raises(JsonFault, match="more than the 4,300 digits") as told:
        read_json("9" * 5000)
    assert "sys." not in str(told.value)
