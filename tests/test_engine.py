"""The scoring core: the same numbers whatever the batch, the profiles beside, the threads; refused rows cost nobody anything."""

from __future__ import annotations

import copy
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from conftest import RESPONSE, Parts
from small_tables import ONE, table_of

import armorm
from armorm.errors import ConversationError, DataError, RecipeError
from armorm.features import forward, packed
from armorm.features.backbone import DType
from armorm.features.extract import extract
from armorm.features.spec import FeatureSpec
from armorm.model.reward_model import RewardModel
from armorm.scoring.engine import Engine
from armorm.scoring.explain import explain
from armorm.scoring.profile import Constraint, Profile
from armorm.scoring.steer import Heads, Steering
from armorm.scoring.table import Basis, ScoreTable
from armorm.scoring.uncertainty import Uncertainty

CAREFUL = Profile(name="careful", fix={"safe": 0.5}, constraints=(Constraint(objective="safe", at_least=5),))
BRIEF = Profile(name="brief", cap={"verbosity": 0.1}, constraints=(Constraint(objective="verbosity", at_most=-5),))
COLUMNS = ("scores", "rewards", "gate", "gate_as_trained", "coefficients", "terms", "contributions")
WORDS = ("hello", "how", "are", "you?", "fine,", "thank", "you.", "2", "+", "4;", "def", "f(x):", "return", "x")


def talks(n: int, seed: int = 0, longest: int = 20) -> list[list[dict[str, str]]]:
    """Conversations of random words; some prompts have several answers."""
    draw = random.Random(seed)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, longest)))

    prompts = [text() for _ in range(max(1, n // 2))]
    return [[{"role": "user", "content": draw.choice(prompts)}, {"role": "assistant", "content": text()}] for _ in range(n)]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the token ids of every pass of the decoder."""
    shapes: list[tuple[int, ...]] = []
    original = forward.run_decoder

    def counted(model: Any, layers: Any, **inputs: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        return original(model, layers, **inputs)

    for module in (forward, packed):
        monkeypatch.setattr(module, "run_decoder", counted)
    return shapes


# -- columns and scores ------------------------------------------------------------------------------------------------------


def test_a_row_of_the_table_is_its_score(tiny_model: RewardModel):
    table = tiny_model.engine().score(talks(20))
    assert len(table) == 20
    assert table.faults == (None,) * 20
    assert table.term_names == ("helpful", "safe", "verbosity", "response-tokens")
    np.testing.assert_array_equal(table.contributions, table.coefficients * table.terms)
    np.testing.assert_allclose(table.scores, table.contributions.sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(table.terms[:, 3], table.tokens)
    for i, score in enumerate(table):
        assert score.score == table.scores[i]
        assert list(score.gate.values()) == table.gate[i].tolist() == table.gate_as_trained[i].tolist()
        assert list(score.contributions.values()) == table.contributions[i].tolist()
        assert (score.profile, score.std, score.reward_std) == (None, None, {})
    assert table[-1] == table[19]
    with pytest.raises(IndexError):
        _ = table[20]
    assert repr(tiny_model.engine().score([*talks(2), []])) == "ScoreTable(3 conversations, 3 objectives, 1 refused)"


def test_the_heads_run_once_a_batch_and_no_features_are_kept(tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    original = RewardModel.heads

    def counted(self: RewardModel, response: torch.Tensor, *others: torch.Tensor) -> Heads:
        asked.append(len(response))
        return original(self, response, *others)

    monkeypatch.setattr(RewardModel, "heads", counted)
    rows = talks(40)
    small, large = (tiny_model.engine(batch_tokens=n).score(rows) for n in (100, 100_000))
    assert sum(asked[:-1]) >= 40
    assert max(asked[:-1]) < 10
    assert len(asked) > 10
    np.testing.assert_allclose(small.scores, large.scores, atol=1e-5)
    assert not small.features


def test_features_are_kept_when_they_are_asked_for(tiny_model: RewardModel):
    rows, other = talks(12), FeatureSpec.parse("1:mean+3:closing")
    table = tiny_model.engine(batch_tokens=100).score(rows, features=[RESPONSE, other])
    assert set(table.features) == {str(RESPONSE), str(other)}
    parts = [*RESPONSE.parts, *other.parts]
    got = extract(rows, tiny_model.backbone, tiny_model.renderer, response=parts, prompt=[], batch_tokens=100)
    for spec in (RESPONSE, other):
        side_by_side = np.concatenate([got.response[str(part)] for part in spec.parts], axis=1)
        np.testing.assert_array_equal(table.features[str(spec)], side_by_side)


def test_nothing_to_score(sure: RewardModel):
    for profile in (None, CAREFUL, []):
        table = sure.engine().score([], profile=profile, deviations=True)
        assert len(table) == 0
        assert (table.scores.shape, table.rewards.shape) == ((0,), (0, 3))
        assert table.deviations() is not None
        assert list(table) == []


@pytest.mark.parametrize("q", [1, 7, 8, 9, 23, 150])
def test_a_score_is_summed_alike_alone_and_in_a_table(q: int):
    rng = np.random.default_rng(q)
    values = torch.from_numpy(rng.normal(size=(5, q)).astype(np.float32))
    basis = replace(ONE, computed=tuple(f"c{i}" for i in range(q - 1)), transform=torch.zeros(q, 1))
    table = ScoreTable.of(basis, Heads(values[:, :1], values[:, :1], values, values.flip(1)), np.ones(5, dtype=np.int64))
    for i, row in enumerate(table.contributions):
        assert table.scores[i] == row.sum() == table[i].score


# -- refused rows ------------------------------------------------------------------------------------------------------------


def refused_in(rows: list[Any], at: int = 77) -> list[Any]:
    return [*rows[:at], [{"role": "system", "content": "be kind"}, *rows[0]], *rows[at:]]


def test_one_refused_row_among_256_adds_no_pass_of_the_decoder(picky: RewardModel, passes: list[tuple[int, ...]]):
    assert packed.packs(picky.backbone)  # which it takes a pass to know
    passes.clear()
    rows = talks(255)
    alone = picky.engine(batch_tokens=1024).score(rows)
    without, passes[:] = list(passes), []
    table = picky.engine(batch_tokens=1024).score(refused_in(rows))
    assert len(table) == 256
    assert passes == without
    assert len(passes) > 3
    assert table.faults[77].startswith("template-refuses: the chat template refuses this conversation: no system; ")
    assert [i for i, fault in enumerate(table.faults) if fault is not None] == [77]
    assert (table.tokens[77], table.truncated[77]) == (0, False)
    for name in COLUMNS:
        column = getattr(table, name)
        assert np.isnan(column[77]).all(), name
        np.testing.assert_array_equal(np.delete(column, 77, axis=0), getattr(alone, name), err_msg=name)


def test_every_kind_of_refusal_has_its_sentence(picky: RewardModel):
    good = talks(1)[0]
    half = [good[0], {"role": "assistant", "content": "\ud800"}]
    rows = [good, good[:1], [], half, good[::-1], refused_in([good], 0)[0]]
    table = picky.engine().score(rows, profile=CAREFUL, deviations=True)
    reasons = ["no-answer", "not-messages", "not-utf8", "no-answer", "template-refuses"]
    assert [None if f is None else f.split(":")[0] for f in table.faults] == [None, *reasons]
    assert np.isnan(table.scores).tolist() == [False, *[True] * 5]
    assert np.isnan(table.contributions[1:]).all()
    assert table[0].profile == "careful"
    with pytest.raises(ConversationError, match="conversation 2 of 6: no-answer: end the conversation with"):
        _ = table[1]


def test_all_refused(picky: RewardModel, passes: list[tuple[int, ...]]):
    table = picky.engine().score([[], []])
    assert not passes
    assert np.isnan(table.scores).all()
    assert table.rewards.shape == (2, 3)


def test_a_model_names_the_refused_row_before_the_decoder_runs(picky: RewardModel, passes: list[tuple[int, ...]]):
    with pytest.raises(ConversationError, match="conversation 78 of 256: template-refuses"):
        picky.score(refused_in(talks(255)))
    with pytest.raises(ConversationError, match=r"^no-answer"):
        picky.score(talks(1)[0][:1])
    assert not passes


# -- profiles ----------------------------------------------------------------------------------------------------------------


def test_two_profiles_in_one_batch_equal_two_batches(tiny_model: RewardModel, passes: list[tuple[int, ...]]):
    rows, engine = talks(40), tiny_model.engine()
    profiles = [(CAREFUL, BRIEF, None)[i % 3] for i in range(40)]
    mixed = engine.score(rows, profile=profiles)
    once, passes[:] = list(passes), []
    plain = engine.score(rows)
    assert passes == once  # profiles cost no pass
    assert mixed.term_names[4:] == ("safe at least 5", "verbosity at most -5")
    for profile in (CAREFUL, BRIEF, None):
        at = [i for i, one in enumerate(profiles) if one is profile]
        whole, apart = plain.steered(profile), engine.score([rows[i] for i in at], profile=profile)
        for n, i in enumerate(at):
            same(mixed[i], whole[i], 1e-6)
            same(mixed[i], apart[n], 2e-5)
        np.testing.assert_allclose(mixed.scores[at], apart.scores, atol=2e-5)
    np.testing.assert_allclose(mixed.contributions.sum(axis=1), mixed.scores, rtol=1e-9)
    assert (mixed.contributions[1::3, 4] == 0).all()  # the constraint is another row's
    assert (mixed.contributions[0::3, 4] < 0).all()


def same(one: armorm.Score, other: armorm.Score, near: float) -> None:
    """The same names, and numbers up to rounding."""
    assert (one.profile, one.constraints, one.truncated) == (other.profile, other.constraints, other.truncated)
    for name in ("rewards", "raw", "gate", "gate_as_trained", "coefficients", "terms", "contributions"):
        a, b = getattr(one, name), getattr(other, name)
        assert list(a) == list(b), name
        assert list(a.values()) == pytest.approx(list(b.values()), rel=near, abs=near), name
    assert one.score == pytest.approx(other.score, abs=near * 10)


def test_steering_a_table_is_scoring_under_the_profile(tiny_model: RewardModel):
    rows, engine = talks(10), tiny_model.engine()
    table = engine.score(rows)
    steered = table.steered(CAREFUL)
    for one, two in zip(steered, engine.score(rows, profile=CAREFUL), strict=True):
        assert one == two
    for one, two in zip(steered.steered(BRIEF).steered(None), table, strict=True):
        assert one == two  # a table remembers the gate as it was trained


def test_a_profile_is_bound_once_however_many_rows_it_steers(tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch):
    bound: list[str] = []
    original = Steering.of.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Steering], profile: Profile, *others: Any) -> Steering:
        bound.append(profile.name)
        return original(cls, profile, *others)

    monkeypatch.setattr(Steering, "of", classmethod(counted))
    again = Profile.from_json(CAREFUL.to_json())
    tiny_model.engine(batch_tokens=100).score(talks(30), profile=[(CAREFUL, BRIEF, again)[i % 3] for i in range(30)]).scores.sum()
    assert bound == ["careful", "brief"]


def test_profiles_that_do_not_fit_are_refused_before_the_decoder_runs(tiny_model: RewardModel, passes: list[tuple[int, ...]]):
    with pytest.raises(RecipeError, match="did you mean 'safe'"):
        tiny_model.engine().score(talks(3), profile=[CAREFUL, None, Profile(drop=("save",))])
    with pytest.raises(DataError, match="2 profiles for 3 conversations"):
        tiny_model.engine().score(talks(3), profile=[CAREFUL, CAREFUL])
    assert not passes


def test_a_baked_profile_steers_rows_without_one(assembled: Callable[..., RewardModel], parts: Parts):
    rows, model = talks(3), assembled(*parts)
    plain = model.score(rows)
    model.config.profile = CAREFUL.to_json()
    assert [s.profile for s in model.score(rows)] == ["careful"] * 3
    mixed = model.score(rows, profile=[None, BRIEF, Profile()])
    assert [s.profile for s in mixed] == ["careful", "brief", "unnamed"]
    assert mixed[2].score == plain[2].score


# -- standard deviations -----------------------------------------------------------------------------------------------------


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many rows each computation of standard deviations had."""
    asked: list[int] = []
    original = Uncertainty.of_score

    def counted(self: Uncertainty, features: np.ndarray, coefficients: np.ndarray) -> Any:
        asked.append(len(features))
        return original(self, features, coefficients)

    monkeypatch.setattr(Uncertainty, "of_score", counted)
    return asked


def test_standard_deviations_are_computed_where_they_are_asked_for(sure: RewardModel, estimates: list[int]):
    rows, engine = talks(9), sure.engine()
    table = engine.score(rows)
    assert (table[0].std, table.deviations(), table.features) == (None, None, {})
    table = engine.score([*rows, []], deviations=True)
    assert table.scores.shape == (10,)
    assert not estimates
    first = table[0]
    assert estimates == [9]
    _ = table[1]
    known = table.deviations()
    assert estimates == [9]
    assert known is not None
    assert first.std == known.std[0]
    assert list(first.reward_std.values()) == known.reward_std[0].tolist()
    assert np.isnan(known.std).tolist() == [False] * 9 + [True]
    assert [s.std for s in sure.score(rows)] == known.std[:9].tolist()
    assert estimates == [9, 9]


def test_under_a_profile_the_deviations_are_those_of_the_steered_score(sure: RewardModel):
    table = sure.engine().score(talks(5), deviations=True)
    plain, steered = table.deviations(), table.steered(CAREFUL).deviations()
    assert plain is not None
    assert steered is not None
    np.testing.assert_array_equal(plain.reward_std, steered.reward_std)
    assert np.abs(plain.std - steered.std).min() > 1e-6


# -- explanations and differences --------------------------------------------------------------------------------------------


def test_a_model_explains_a_conversation_against_its_reference(sure: RewardModel, tiny_model: RewardModel):
    talk = talks(1)[0]
    found = sure.explain(talk, alike=3)
    assert found.to_json() == explain(sure.score(talk), sure.reference, alike=3).to_json()
    assert len(found.alike) == 3
    assert found.percentile is not None
    assert found.score.std is not None
    steered = sure.explain(talk, profile=CAREFUL)
    assert (steered.score.profile, steered.percentile) == ("careful", None)
    bare = tiny_model.explain(talk)
    assert (bare.percentile, bare.alike) == (None, ())


def test_a_model_says_what_makes_the_difference(sure: RewardModel, tiny_model: RewardModel, passes: list[tuple[int, ...]]):
    ask = {"role": "user", "content": "how are you?"}
    one, two = ([ask, {"role": "assistant", "content": text}] for text in ("fine, thank you.", "hello hello hello"))
    found = sure.difference(one, two, names=("ours", "theirs"), profile=CAREFUL)
    first, second = (sure.renderer.render(conversation) for conversation in (one, two))
    assert passes[-1] == (1, len(first) + len(second) - len(first.prompt))  # the prompt once, and both answers
    a, b = sure.score([one, two], profile=CAREFUL)
    plain = armorm.difference(a, b, names=("ours", "theirs"), std=found.std)
    assert found.to_json() == plain.to_json()
    assert found.std is not None
    assert a.std is not None
    assert b.std is not None
    assert 0 < found.std < a.std + b.std
    assert tiny_model.difference(one, two).std is None
    table = sure.engine().score([one, [], two], profile=CAREFUL, deviations=True)
    assert table.difference(0, 2).std == pytest.approx(found.std, rel=1e-6)
    with pytest.raises(ConversationError, match="conversation 2 of 3"):
        table.difference(0, 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("batch_tokens", [64, 4096])
def test_exact_scores_of_a_short_type_are_those_of_each_alone_to_the_bit(
    dtype: DType, batch_tokens: int, assembled: Callable[..., RewardModel], parts: Parts, passes: list[tuple[int, ...]]
):
    """Whatever stands in the list: prompts that several share, repeats, one that is refused, another order."""
    model = assembled(*parts, dtype=dtype)
    rows = [*talks(20, 3, longest=40), *talks(4, 3, longest=1), []]
    rows.append(rows[0])
    engine, rounded = model.engine(exact=True, batch_tokens=batch_tokens), model.engine(batch_tokens=batch_tokens)
    alone = [engine.score([row]) for row in rows]
    for seed in range(3):
        order = random.Random(seed).sample(range(len(rows)), len(rows)) if seed else range(len(rows))
        passes.clear()
        table = engine.score([rows[i] for i in order])
        assert sorted(passes) == sorted((1, len(ids)) for ids in {model.renderer.render(row).ids for row in rows if row})
        for name in COLUMNS:
            whole = np.concatenate([getattr(alone[i], name) for i in order])
            np.testing.assert_array_equal(getattr(table, name), whole, err_msg=f"{name} in order {seed}")
    scored = rows[:24]
    assert [s.score for s in model.score(scored, exact=True)] == [model.score(row, exact=True).score for row in scored]
    beside = rounded.score(scored).scores
    assert (beside != np.array([one.scores[0] for one in alone[:24]])).any(), "rounding would not be seen here"


# -- threads -----------------------------------------------------------------------------------------------------------------


def test_eight_threads_get_the_numbers_that_one_gets(tiny_model: RewardModel):
    """50 conversations each, of other lengths and under other profiles, on a model that no one has scored with before."""
    jobs = [(talks(50, seed, longest=4 + 3 * seed), (None, CAREFUL, BRIEF)[seed % 3]) for seed in range(8)]
    serial = [tiny_model.engine(batch_tokens=800).score(rows, profile=profile) for rows, profile in jobs]
    shared = copy.deepcopy(tiny_model)
    shared.__dict__.pop("renderer", None)
    engine, found, start = Engine(shared, batch_tokens=800), dict[int, ScoreTable](), threading.Barrier(8)

    def score(seed: int) -> None:
        rows, profile = jobs[seed]
        start.wait()
        found[seed] = engine.score(rows, profile=profile)

    threads = [threading.Thread(target=score, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(8))
    for seed, table in enumerate(serial):
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(found[seed], name), getattr(table, name), err_msg=f"{name} of thread {seed}")


@pytest.mark.parametrize("given", ["mask", "lengths", "nothing"])
def test_eight_threads_that_call_the_model_on_ids_get_the_numbers_that_one_gets(given: str, tiny_model: RewardModel):
    """Bare ids as trainers give them, of other lengths, some padded on the left; a ninth thread scores meanwhile."""
    batches = [_ids_of(tiny_model, talks(6, seed, longest=4 + 3 * seed), left=seed % 2 == 1) for seed in range(8)]
    keys = {"mask": ("input_ids", "attention_mask"), "lengths": ("input_ids", "attention_mask", "prompt_lengths")}
    calls = [{key: batch[key] for key in keys.get(given, ("input_ids",))} for batch in batches]
    rows = talks(20, 8)
    serial, wanted = [tiny_model(**call) for call in calls], [score.score for score in tiny_model.score(rows)]
    assert not any(torch.equal(a.logits, b.logits) for a, b in pairwise(serial))
    shared, wrong, start = copy.deepcopy(tiny_model), list[str](), threading.Barrier(9)

    def call(seed: int) -> None:
        start.wait()
        for _ in range(12):
            found = shared(**calls[seed])
            wrong.extend(f"{name} of {seed}" for name, value in serial[seed].items() if not torch.equal(found[name], value))

    def score() -> None:
        start.wait()
        for _ in range(3):
            wrong.extend(f"score {i}" for i, found in enumerate(shared.score(rows)) if found.score != wanted[i])

    with ThreadPoolExecutor(9) as pool:
        for done in [*(pool.submit(call, seed) for seed in range(8)), pool.submit(score)]:
            done.result(timeout=120)
    assert not wrong


def _ids_of(model: RewardModel, conversations: Sequence[Any], *, left: bool) -> dict[str, torch.Tensor]:
    rendered = [model.renderer.render(c) for c in conversations]
    rows = [torch.tensor(r.ids) for r in rendered]
    side = "left" if left else "right"
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=model.config.pad_token_id or 0, padding_side=side)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    lengths = torch.tensor([len(r.prompt) for r in rendered])
    return {"input_ids": ids, "attention_mask": mask, "prompt_lengths": lengths}


def test_a_table_can_be_made_of_any_numbers():
    table = table_of([0.25, -1.5])
    assert table.scores.tolist() == [0.25, -1.5]
    assert isinstance(table.basis, Basis)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_its_threads_before_anybody_asks_for_them(monkeypatch):
    asked, told = os.pipe()
    monkeypatch.setattr(torch, "set_num_threads", lambda n: os.write(told, f"{n} threads".encode()))
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.close(told)
    with os.fdopen(asked, "rb") as pipe:
        assert pipe.read().decode() == f"{torch.get_num_threads()} threads"
