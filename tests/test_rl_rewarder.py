"""The core of the trainers' rewards: what a row holds, that each conversation is computed once, and what happens to odd ones."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from armorm.errors import ArmormError, BackboneError, CheckpointError, ConversationError, RecipeError, UserError
from armorm.model.reward_model import RewardModel
from armorm.rl import areal, settings, trl
from armorm.rl import rewarder as core
from armorm.rl.conversations import from_query, from_text, joined, prompt_in, without_end
from armorm.rl.local import LocalModel
from armorm.rl.rewarder import Rewarder, Row, rewarder
from armorm.rl.settings import Settings, from_environment
from armorm.rl.trl import reward_functions
from armorm.scoring.profile import Profile

ASKED = [{"role": "user", "content": "How are you?"}]


def talk(answer: Any, prompt: Any = "How are you?") -> list[Any]:
    return joined(prompt, answer)


@pytest.fixture(scope="module")
def folder(tiny_model: RewardModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reward") / "model"
    tiny_model.save_pretrained(place)
    return place


class Counted:
    """A source that counts what it is asked, and waits for a signal where it has one."""

    def __init__(self, *, faults: Sequence[str] = (), wait: threading.Event | None = None, error: BaseException | None = None):
        self.faults, self.wait, self.error = faults, wait, error
        self.asked: list[int] = []

    def names(self, part: str) -> tuple[str, ...]:
        return ("helpful", "score")

    def score(self, conversations: Sequence[Any]) -> list[Row | str]:
        self.asked.append(len(conversations))
        if self.wait is not None:
            assert self.wait.wait(10)
        if self.error is not None:
            raise self.error
        texts = [str(c[-1]["content"]) for c in conversations]
        row = [Row(float(len(t)), {"rewards": {"helpful": 0.5, "score": 0.25}, "contributions": {"helpful": 1.0}}) for t in texts]
        return [t if t in self.faults else r for t, r in zip(texts, row, strict=True)]


# -- rows ------------------------------------------------------------------------------------------------------------------------


def test_paths_and_numpys_numbers_are_settings_too(folder: Path, tmp_path: Path):
    given = {"model": tmp_path / "m", "profile": tmp_path / "p.yaml", "chunk": np.int32(8), "unscored": np.float32(-1)}
    wanted = Settings(str(tmp_path / "m"), profile=str(tmp_path / "p.yaml"), chunk=8, unscored=-1.0)
    assert settings.settings_of(given) == wanted
    (score,) = reward_functions(folder, objectives=[], score=True, chunk=np.int32(8))
    assert score.settings == Settings(str(folder), chunk=8)
    for wrong in ({"retries": np.bool_(True)}, {"chunk": np.float64(8)}, {"timeout": np.float64("nan")}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))} is "):
            settings.settings_of({"model": "m", **wrong})


def test_rows_are_the_models_own_numbers(tiny_model: RewardModel, folder: Path):
    talks = [talk("fine, thank you."), talk("return x"), talk("2 + 2 is 4")]
    rows = Rewarder(Settings(str(folder))).rows(talks)
    for row, score in zip(rows, tiny_model.score(talks), strict=True):
        assert row is not None
        assert row.score == pytest.approx(score.score, abs=1e-5)
        assert dict(row.named("rewards")) == pytest.approx(dict(score.rewards), abs=1e-5)
        assert dict(row.named("contributions")) == pytest.approx(dict(score.contributions), abs=1e-5)
        assert sum(row.named("contributions").values()) == pytest.approx(row.score)
        gated = sum(score.gate[name] * x for name, x in row.named("debiased").items())
        assert gated == pytest.approx(row.score, abs=1e-4)
        assert row.named("debiased") != row.named("rewards")


def test_a_profile_holds_for_all_rows(tiny_model: RewardModel, folder: Path, tmp_path: Path):
    profile = Profile(name="p", drop=("safe",), constraints=({"objective": "helpful", "at_least": 100.0},), nuisances={})
    profile.to_yaml(tmp_path / "p.yaml")
    settings = Settings(str(folder), profile=str(tmp_path / "p.yaml"), part="contributions")
    (row,) = Rewarder(settings).rows([talk("fine")])
    want = tiny_model.score(talk("fine"), profile=profile)
    assert row is not None
    assert row.score == pytest.approx(want.score, abs=1e-5)
    assert row.named("contributions")["helpful at least 100"] < 0
    assert tuple(row.named("contributions")) == Rewarder(settings).source.names("contributions")
    with pytest.raises(RecipeError, match="nothing"):
        LocalModel(Settings(str(folder), profile='{"drop": ["nothing"]}'))


@pytest.mark.parametrize("part", ["rewards", "debiased", "contributions"])
def test_numbers_have_the_same_names_in_all_rows(folder: Path, part: Any):
    asked = Rewarder(Settings(str(folder), part=part))
    good, bad = [asked.numbers(row) for row in asked.rows([talk("fine"), talk("")])]
    assert list(good) == list(bad) == ["score", *asked.source.names(part), "scored"]
    assert (good["scored"], bad["scored"]) == (1.0, 0.0)
    assert {bad[name] for name in bad} == {-1.0, 0.0}
    assert Rewarder(Settings("m", unscored=-5.0), Counted()).numbers(None)["helpful"] == -5


def test_an_objective_called_score_does_not_take_the_scores_place():
    asked = Rewarder(Settings("m"), Counted())
    assert asked.numbers(asked.rows([talk("four")])[0]) == {"score": 4, "helpful": 0.5, "score (objective)": 0.25, "scored": 1}


def test_a_part_that_a_source_lacks_is_named():
    (row,) = Rewarder(Settings("m"), Counted()).rows([talk("x")])
    assert row is not None
    with pytest.raises(UserError, match="'debiased' here, only rewards, contributions"):
        row.named("debiased")


# -- once ------------------------------------------------------------------------------------------------------------------------


def test_what_is_known_is_not_asked_again():
    source = Counted(faults=("bad",))
    asked = Rewarder(Settings("m"), source)
    rows = asked.rows([talk("a"), talk("bb"), talk("a"), talk("bad")])
    assert [row and row.score for row in rows] == [1, 2, 1, None]
    assert asked.rows([copy.deepcopy(talk("bb")), talk("bad")]) == [rows[1], None]
    assert asked.rows([talk("ccc"), talk("a")])[0].score == 3
    assert source.asked == [3, 1]
    assert asked.rows([]) == []


def test_two_conversations_that_differ_in_anything_are_two():
    source = Counted()
    pairs = [
        (talk("a"), talk("a", "Who?")),
        (talk("a"), talk("a ")),
        (talk("\u00e9"), talk("e\u0301")),
        ([*ASKED, {"role": "assistant", "content": "a"}], [*ASKED, {"role": "assistant", "content": "a", "thinking": "b"}]),
        ([*ASKED, {"role": "assistant", "content": "\ud800"}], [*ASKED, {"role": "assistant", "content": "\ud801"}]),
    ]
    for one, other in pairs:
        assert len(Rewarder(Settings("m"), source).rows([one, other])) == 2
    assert source.asked == [2] * len(pairs)


def test_the_memory_is_bounded_and_the_oldest_goes_first():
    source = Counted()
    asked = Rewarder(Settings("m", remember=3), source)
    assert len(asked.rows([talk("x" * i) for i in range(1, 6)])) == 5
    assert len(asked._rows) == 3
    asked.rows([talk("xxx")])
    asked.rows([talk("x")])
    assert source.asked == [5, 1]


def test_callers_at_once_wait_for_the_first():
    gate = threading.Event()
    source = Counted(wait=gate)
    asked = Rewarder(Settings("m"), source)
    with ThreadPoolExecutor(8) as pool:
        coming = [pool.submit(asked.rows, [talk("a"), talk("bb")]) for _ in range(8)]
        gate.set()
        assert {tuple(row.score for row in one.result(10)) for one in coming} == {(1.0, 2.0)}
    assert source.asked == [2]

    async def many() -> list[Any]:
        return await asyncio.gather(*(asked.rows_async([talk("ccc")]) for _ in range(100)))

    assert {rows[0].score for rows in asyncio.run(many())} == {3.0}
    assert source.asked == [2, 1]


@pytest.mark.parametrize("error", [ArmormError("gone"), KeyboardInterrupt()])
def test_a_source_that_fails_is_asked_again_and_nobody_waits_for_ever(error: BaseException):
    gate = threading.Event()
    source = Counted(wait=gate, error=error)
    asked = Rewarder(Settings("m"), source)
    with ThreadPoolExecutor(4) as pool:
        coming = [pool.submit(asked.rows, [talk("a")]) for _ in range(4)]
        gate.set()
        failed = [one.exception(10) for one in coming]
    assert all(isinstance(one, type(error) | ArmormError) for one in failed)
    source.error = None
    assert asked.rows([talk("a")])[0].score == 1


def test_a_source_that_loses_count_is_a_fault():
    source = Counted()
    source.score = lambda conversations: []
    with pytest.raises(ArmormError, match="0 rewards for 1 conv"):
        Rewarder(Settings("m"), source).rows([talk("a")])


# -- another model ---------------------------------------------------------------------------------------------------------------


class Swapped:
    """A source that asks one model and then another; a score tells which."""

    def __init__(self) -> None:
        self.model, self.asked = 1, 0

    def names(self, part: str) -> tuple[str, ...]:
        return ("helpful",)

    def score(self, conversations: Sequence[Any]) -> list[Row | str]:
        model = self.model
        self.asked += len(conversations)
        time.sleep(0.001)
        return [Row(float(model), {"rewards": {"helpful": 0.5}}, str(model)) for _ in conversations]


def test_where_another_model_answers_all_is_forgotten_and_no_batch_mixes_them(caplog: pytest.LogCaptureFixture):
    source = Swapped()
    asked = Rewarder(Settings("m"), source)

    def batch(i: int) -> set[float]:
        if i == 100:
            source.model = 2
        rows = asked.rows([talk(f"answer {j}") for j in range(i // 4, i // 4 + 6)])
        return {row.score for row in rows if row is not None}

    with caplog.at_level(logging.WARNING, "armorm.rl"), ThreadPoolExecutor(8) as pool:
        found = list(pool.map(batch, range(200)))
    assert all(len(scores) == 1 for scores in found)
    assert found[0] == {1.0}
    assert found[-1] == {2.0}
    assert [row.score for row in asked.rows([talk("answer 3"), talk("new")]) if row is not None] == [2.0, 2.0]
    assert caplog.text.count("another model") == 1


def test_one_model_started_anew_is_remembered():
    source = Swapped()
    asked = Rewarder(Settings("m"), source)
    for answers in (("a", "b"), ("b", "c"), ("a", "c")):
        asked.rows([talk(answer) for answer in answers])
    assert source.asked == 3


# -- odd conversations -----------------------------------------------------------------------------------------------------------

CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
ODD = {
    "empty": talk(""),
    "blank": talk(" \n\t"),
    "nothing": talk(None),
    "no turns": joined(ASKED, []),
    "no prompt": joined([], [{"role": "assistant", "content": "x"}]),
    "a number": 3,
    "circle": CIRCLE,
    "surrogate": talk("\ud800"),
    "ends with a tool": joined(ASKED, [CALL, {"role": "tool", "content": "4"}]),
    "calls only": joined(ASKED, [CALL]),
    "unknown role": [{"role": "king", "content": "x"}],
    "bytes": talk(b"fine"),
    "NaN": talk(float("nan")),
    "image": joined([{"role": "user", "content": [{"type": "image", "image": "x"}]}], "x"),
}


def test_what_can_not_be_scored_is_none_and_told(folder: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "armorm.rl"):
        rows = Rewarder(Settings(str(folder))).rows([talk("fine"), *ODD.values(), talk("return x")])
    assert [name for name, row in zip(ODD, rows[1:-1], strict=True) if row is not None] == []
    assert rows[0] is not None
    assert rows[-1] is not None
    assert f"{len(ODD)} of {len(ODD) + 2} conversations have no reward" in caplog.text
    assert "empty-turn" in caplog.text


def test_agents_and_answers_that_start_with_an_empty_line_are_scored(folder: Path):
    turns = [
        {"role": "assistant", "content": "I look."},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "2 + 2 is 4"},
    ]
    talks = [talk("\n\nfine"), talk("\nfine, thank you.\n"), joined(ASKED, turns), talk("😀‮ ​x"), talk("x" * 5000)]
    assert all(row is not None for row in Rewarder(Settings(str(folder))).rows(talks))


def test_a_row_that_overflows_does_not_take_its_neighbours_along(folder: Path, monkeypatch: pytest.MonkeyPatch):
    source = LocalModel(Settings(str(folder)))
    whole = type(source._scorer.engine).score

    def overflow(self: Any, conversations: Sequence[Any], **more: Any) -> Any:
        if any("boom" in c[-1]["content"] for c in conversations):
            raise BackboneError("features of rows 1 are not finite")
        return whole(self, conversations, **more)

    monkeypatch.setattr(type(source._scorer.engine), "score", overflow)
    rows = source.score([talk("fine"), talk("boom"), talk("return x")])
    assert [isinstance(row, str) for row in rows] == [False, True, False]
    with pytest.raises(BackboneError, match="not finite"):
        source.score([talk("boom"), talk("boom boom")])


# -- prompts and completions ----------------------------------------------------------------------------------------------------


def test_texts_and_messages_are_joined():
    assert talk("b", "a") == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert joined(ASKED, [{"role": "assistant", "content": "b"}]) == joined(np.array(ASKED), "b")
    assert prompt_in({"question": "q", "messages": []}, "messages", "question") == "q"
    assert prompt_in({"messages": np.array(ASKED)}, "messages").tolist() == ASKED
    assert prompt_in(None, "messages") is prompt_in({"messages": 3}, "messages") is None


def test_a_prompt_in_a_template_is_taken_apart_and_a_text_without_marks_is_the_users():
    hi, fine = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "fine"}
    for prompt in ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Hi", [hi]):
        assert from_text(prompt, "fine<|im_end|>") == [hi, fine]
    odd = "What does <|im_start|>user\nmean?"
    found = from_text(odd, "fine")
    assert isinstance(found, ConversationError)
    assert found.fault == "unknown-template"
    assert joined(odd, "fine") == [{"role": "user", "content": odd}, fine]
    tag = {"role": "assistant", "content": "<s>old</s>"}
    assert from_text("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<s>old</s><|im_end|>") == [hi, tag]
    assert from_text("<s>[INST] Hi [/INST]", "fine</s>") == [hi, fine]


def test_any_ordered_collection_is_a_prompt_and_a_completion():
    say = [{"role": "assistant", "content": "fine"}]
    forms: list[Callable[[Any], Any]] = [
        list,
        tuple,
        lambda x: np.array(x, dtype=object),
        pa.array,
        lambda x: pa.chunked_array([x]),
    ]
    for form in forms:
        assert joined(form(ASKED), form(say)) == from_text(form(ASKED), form(say)) == [*ASKED, *say]
        assert from_text(prompt_in({"messages": form(ASKED)}, "messages"), "fine") == [*ASKED, *say]
    asked, fine = pa.array(["How are you?", "fine"])
    assert joined(asked, fine) == from_text(asked, fine) == [*ASKED, *say]
    assert prompt_in(pa.scalar({"question": "q"}), "question") == "q"


def test_a_query_that_does_not_begin_with_its_prompt_has_no_row():
    source = Counted()
    bad = from_query("ong question?The answer", "A long question?")
    assert isinstance(bad, ConversationError)
    assert bad.fault == "prompt-elsewhere"
    rows = Rewarder(Settings("m"), source).rows([bad, from_query("Who?Me", "Who?"), from_query(3, "Who?")])
    assert [row and row.score for row in rows] == [None, 2.0, None]
    assert source.asked == [1]


def test_the_token_that_ended_an_answer_is_none_of_it():
    assert without_end("fine<|im_end|>\n") == "fine"
    assert without_end("fine<|eot_id|><|end_of_text|>") == "fine"
    assert without_end("</s> is a token\n") == "</s> is a token\n"


def test_ends_of_answers_are_taken_in_proportional_time():
    for piece in ("<|im_start|>user\n", "[INST] ", "<s>", "\n", "</s>"):
        without_end(piece * 20_000)


# -- settings, processes --------------------------------------------------------------------------------------------------------


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ARMORM_REWARD_MODEL", raising=False)
    with pytest.raises(UserError, match="ARMORM_REWARD_MODEL is not set"):
        from_environment()
    for name, value in {"REWARD_MODEL": " m ", "REWARD_PART": "debiased", "UNSCORED": "-2.5", "REWARD_PROFILE": "p"}.items():
        monkeypatch.setenv(f"ARMORM_{name}", value)
    assert from_environment() == Settings("m", "p", "debiased", -2.5)
    monkeypatch.setenv("ARMORM_UNSCORED", "low")
    with pytest.raises(UserError, match="'low': put a number"):
        from_environment()


NAN, INF = float("nan"), float("inf")
WHOLE = vars(Settings("m"))


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("model", [3, " ", ["m"]], "a model folder, a hub id"),
        ("profile", ["", {}, 3], "a YAML file"),
        ("part", ["parts", ["rewards"], None], "there are rewards, debiased, contributions"),
        ("unscored", ["x", "-1", NAN, INF, True, [1]], "a finite number"),
        ("key_env", ["", None], "the name of an environment variable"),
        ("timeout", [0, -1, NAN, INF, "5", None, 1e300], "seconds, above 0"),
        ("retries", [1.5, -1, True, "2", None], "a whole number, 0 at least"),
        ("chunk", [0, 2.0, None], "a whole number, 1 at least"),
        ("batch_tokens", [-5, 0, 1.5], "a whole number, 1 at least"),
        ("remember", [0, "all"], "a whole number, 1 at least"),
    ],
)
def test_settings_that_can_not_be_are_refused_by_their_names(name: str, values: list[Any], told: str):
    for value in values:
        with pytest.raises(UserError, match=f"^{name} is .*{told}"):
            settings.settings_of({"model": "m"} | {name: value}) if value is not None else settings.check_values(
                WHOLE | {name: None}
            )


def test_every_setting_is_looked_at_and_a_urls_scheme_in_capitals_is_one():
    assert {*settings._NEEDED, "part"} == set(Settings.__dataclass_fields__)
    assert Settings("HTTP://LocalHost:8000").remote
    assert Settings("Https://host").remote
    assert not Settings("httpmodels/a").remote


def test_settings_that_are_given_act_beside_the_environments(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"REWARD_MODEL": "m", "REWARD_PART": "parts", "UNSCORED": "-2.5"}.items():
        monkeypatch.setenv(f"ARMORM_{name}", value)
    found = settings.settings_of({"part": "debiased", "profile": "p.yaml", "chunk": 3, "timeout": None})
    assert found == Settings("m", "p.yaml", "debiased", -2.5, chunk=3)
    with pytest.raises(UserError, match="no setting 'modell'; did you mean 'model'"):
        settings.settings_of({"modell": "x"})
    with pytest.raises(UserError, match="no setting 'zzz'; there are model, profile"):
        settings.settings_of({"zzz": None})
    monkeypatch.setenv("ARMORM_REWARD_PROFIL", "p")
    with pytest.raises(UserError, match=r"ARMORM_REWARD_PROFIL .*did you mean 'ARMORM_REWARD_PROFILE'"):
        settings.settings_of({"part": "debiased"})


@pytest.mark.parametrize("place", ["h:1?api_key=KEY", "h/v1?KEY", "h#KEY", "me:KEY@h:1", "KEY@h", "h:8000/v1/rewards/?key=KEY"])
def test_a_key_in_a_url_is_refused_and_not_repeated(place: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARMORM_REWARD_MODEL", f" HTTP://{place}")
    for ask in (lambda: Settings(f"http://{place}"), from_environment, lambda: trl.reward_functions(f"https://{place}")):
        with pytest.raises(UserError, match="into ARMORM_API_KEY") as error:
            ask()
        assert "KEY" not in str(error.value).replace("ARMORM_API_KEY", "")
    assert Settings("http://h/a@b").remote


def test_no_model_is_named():
    with pytest.raises(UserError, match="no model is named"):
        Settings("")


def test_a_part_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARMORM_REWARD_MODEL", "m")
    monkeypatch.setenv("ARMORM_REWARD_PART", "parts")
    with pytest.raises(UserError, match="'parts': there are rewards, debiased, contributions"):
        from_environment()


def test_functions_with_the_same_settings_share_one_model(folder: Path):
    assert rewarder(Settings(str(folder))) is rewarder(Settings(str(folder)))
    assert rewarder(Settings(str(folder))) is not rewarder(Settings(str(folder), part="debiased"))
    assert pickle.loads(pickle.dumps(Settings("m", unscored=1.0))) == Settings("m", unscored=1.0)


def test_a_model_that_is_none_is_named():
    with pytest.raises(CheckpointError, match="no such folder"):
        Rewarder(Settings("./nowhere")).rows([talk("a")])


def test_a_forked_process_scores_on_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch):
    # AReaL's pool is forked from a process in which torch has run on several threads.
    monkeypatch.setenv("ARMORM_REWARD_MODEL", str(folder))
    torch.ones(512, 512) @ torch.ones(512, 512)
    with core._OPENING, ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        found = pool.submit(areal.reward, "How are you?", "fine<|im_end|>", [1], [2], messages=ASKED).result(60)
    assert found == pytest.approx(areal.reward("How are you?", "fine"), abs=1e-5)
    assert areal.reward("How are you?", "", messages=ASKED) == -1.0
