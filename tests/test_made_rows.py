"""Rows that are made: of training prompts alone, the same in any order, counted, read forwards; what a recipe may ask for."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_world import ALL_MADE, KINDS, answer, made_recipe, prompt, write_world
from small_run import read_lines, write_lines

from armorm.conversation import Message, prompt_group
from armorm.data import stored_rows
from armorm.data.made import rows as made_rows
from armorm.data.made.changes import TEXTS, Case, Reason
from armorm.data.made.choosing import Origin, choose, partners, survey
from armorm.data.made.harmless import speaks_of_safety
from armorm.data.made.kinds import KINDS as MADE
from armorm.data.made.rows import made_ratings
from armorm.data.rows import AnyRow, RatedResponse, texts_of
from armorm.data.splits import Split
from armorm.data.stored_rows import RowFolder
from armorm.data.summary import SourceFacts
from armorm.errors import DataError, RecipeError
from armorm.recipe import Recipe, load_recipe
from armorm.run.plan import plan
from armorm.run.pricing import LETTERS, _sizes
from armorm.run.rows import Rows, read_rows, side_of

NOBODY = np.empty(0, np.uint64)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_world(folder)
    return folder


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    return load_recipe(made_recipe(folder, folder / "no-decoder", **changes))


def read(recipe: Recipe) -> Rows:
    return read_rows(recipe, recipe.load_objectives())


@pytest.fixture(scope="module")
def rows(world: Path) -> Rows:
    return read(recipe_of(world))


def answers(found: Sequence[AnyRow]) -> list[tuple[Any, ...]]:
    return [(*texts_of(row), getattr(row, "ratings", {}), row.group) for row in found]


def context(row: AnyRow) -> str:
    return json.dumps(texts_of(row)[0])


def said(row: AnyRow) -> set[tuple[str, str]]:
    """Each answer with its context."""
    return {(context(row), str(one)) for one in texts_of(row)[1]}


def facts_of(rows: Rows, name: str, kind: str) -> SourceFacts:
    (found,) = (f for f in rows.facts if (f.name, f.kind) == (name, kind))
    return found


# -- what is made ----------------------------------------------------------------------------------------------------------------


def test_every_kind_is_a_source_behind_the_others(rows: Rows):
    assert list(rows.ratings) == ["chat-ratings", "duty-ratings", *(f"made-{kind}" for kind in KINDS)]
    assert list(rows.pairs) == ["chat-pairs", *(f"made-{kind}" for kind in KINDS[:4]), "contrast-compliance"]


def test_ratings_come_in_twos(rows: Rows):
    for kind in KINDS:
        found = list(rows.ratings[f"made-{kind}"])
        assert 20 <= len(found) <= 60
        whole = {row.id: row for row in found if row.ratings == {kind: 1.0}}
        changed = {row.id: row for row in found if row.ratings == {kind: 0.0}}
        assert len(whole) + len(changed) == len(found)
        assert {f"{name}/changed" for name in whole} == set(changed)
        for name, row in whole.items():
            other = changed[f"{name}/changed"]
            assert (other.group, other.messages[:-1], other.source) == (row.group, row.messages[:-1], f"made-{kind}")
            assert other.messages[-1]["content"] != row.messages[-1]["content"]


def test_pairs_prefer_the_answer_and_name_their_origin(rows: Rows):
    known = {(context(row), texts_of(row)[1][0]) for name in ("chat-ratings", "duty-ratings") for row in rows.ratings[name]}
    known |= {(context(row), row.chosen) for row in rows.pairs["chat-pairs"]}
    for name, found in rows.pairs.items():
        if name != "chat-pairs":
            assert {pair.subset for pair in found} <= {"chat-ratings", "chat-pairs"}
            assert all((context(pair), pair.chosen) in known and pair.source == name for pair in found)
            assert all(pair.id.startswith(f"{pair.subset}/") for pair in found)
    assert {pair.rejected for pair in rows.pairs["contrast-compliance"]} <= set(TEXTS["refusals"])


def test_what_is_rated_and_preferred_is_changed_alike(rows: Rows):
    """So that the decoder reads each changed answer once."""
    for kind in KINDS[1:4]:
        rated = set().union(*map(said, rows.ratings[f"made-{kind}"]))
        assert set().union(*map(said, rows.pairs[f"made-{kind}"])) <= rated


def test_no_test_prompt_and_no_benchmark_prompt_is_used(world: Path, rows: Rows):
    recipe = recipe_of(world)
    held_out = {prompt_group([Message(role="user", content=prompt(i))]) for i in range(40, 48)}
    natural = [row for name in ("chat-ratings", "duty-ratings") for row in rows.ratings[name]]
    sides = {answer: side_of(row.group, recipe) for row in (*natural, *rows.pairs["chat-pairs"]) for answer in texts_of(row)[1]}
    made = [
        row
        for found in (rows.ratings, rows.pairs)
        for name in found
        if "made-" in name or "contrast" in name
        for row in found[name]
    ]
    assert len(made) > 300
    used = Counter(side_of(row.group, recipe) for row in made)
    assert used[Split.TEST] == 0
    assert used[Split.VALIDATION] > 10
    assert not held_out & {row.group for row in made}
    whose = Counter(sides.get(answer) for row in made for answer in texts_of(row)[1])
    assert whose[Split.TEST] == 0, "another prompt's answer is no test prompt's either"
    assert whose[Split.TRAIN] > 100


def test_made_rows_stand_with_their_prompts(tmp_path: Path):
    """A group that the source names joins prompts; what is made of them is in the joined group."""
    write_world(tmp_path)
    tied = [row | {"group": f"g{i // 8}"} for i, row in enumerate(read_lines(tmp_path / "chat-ratings.jsonl"))]
    write_lines(tmp_path / "chat-ratings.jsonl", tied)
    ratings = [{"path": str(tmp_path / "chat-ratings.jsonl"), "columns": {"group": "group"}}, *ALL_MADE]
    found = read(recipe_of(tmp_path, ratings=ratings))
    groups = {context(row): row.group for row in found.ratings["chat-ratings"]}
    assert len(set(groups.values())) < len(groups) / 2
    made = list(found.ratings["made-completeness"])
    assert len(made) > 20
    assert {context(row): row.group for row in made}.items() <= groups.items()


def test_every_answer_that_gives_nothing_is_counted(rows: Rows):
    for facts in rows.facts:
        assert facts.total == len(facts.rows) + sum(facts.drops.values()), facts.name
    relevance, compliance = (facts_of(rows, f"made-{kind}", "ratings").drops for kind in ("relevance", "compliance"))
    assert relevance["test-prompt"] > 0
    assert relevance["over-cap"] > 0
    assert compliance["safety-prompt"] > 0, "24 prompts are also rated on safety"
    known = {reason.value for reason in Reason} | {"over-cap"}
    assert {reason for f in rows.facts if "made-" in f.name for reason in f.drops} <= known


def test_answers_with_tools_are_left_out(tmp_path: Path):
    write_world(tmp_path)
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    found = [call, {"role": "tool", "content": "1"}, {"role": "assistant", "content": answer(0, random.Random(0))}]
    asked = [[{"role": "user", "content": f"{prompt(i)} Look it up."}, *found] for i in range(30)]
    agent = [{"messages": messages, "chat-quality": 1} for messages in asked]
    write_lines(tmp_path / "agent-ratings.jsonl", agent)
    sources = [{"path": str(tmp_path / f"{name}-ratings.jsonl")} for name in ("chat", "agent")]
    made = [{"made": ["relevance", "completeness"], "of": ["agent-ratings", "chat-ratings"]}]
    found = read(recipe_of(tmp_path, ratings=[*sources, *made], pairs=[{"path": str(tmp_path / "chat-pairs.jsonl")}]))
    for name in ("made-relevance", "made-completeness"):
        assert facts_of(found, name, "ratings").drops["tools"] > 20
        assert not [row for row in found.ratings[name] if row.id.startswith("agent-")]


# -- which answers ---------------------------------------------------------------------------------------------------------------


def test_the_rows_order_and_the_seed(world: Path, tmp_path: Path, rows: Rows):
    write_world(tmp_path)
    draw = random.Random(1)
    for name in ("chat-ratings", "chat-pairs", "duty-ratings"):
        own = read_lines(tmp_path / f"{name}.jsonl")
        draw.shuffle(own)
        write_lines(tmp_path / f"{name}.jsonl", own)
    again = read(recipe_of(tmp_path))
    assert {n: answers(found) for n, found in again.ratings.items()} == {n: answers(found) for n, found in rows.ratings.items()}
    assert {n: answers(found) for n, found in again.pairs.items()} == {n: answers(found) for n, found in rows.pairs.items()}
    other = read(recipe_of(world, seed=1))
    assert answers(other.pairs["contrast-compliance"]) != answers(rows.pairs["contrast-compliance"])


def test_a_cap_takes_prompts_in_turn_and_a_larger_one_keeps_what_a_smaller_one_took(world: Path):
    sources = [{"path": str(world / "chat-ratings.jsonl")}]
    pairs = [{"path": str(world / "chat-pairs.jsonl")}]

    def made(cap: int) -> dict[str, str]:
        entry = {"made": ["completeness"], "of": ["chat-*"], "cap": cap}
        found = read(recipe_of(world, ratings=[*sources, entry], pairs=pairs)).ratings["made-completeness"]
        assert len(found) == cap - cap % 2
        return {row.id: row.group for row in found}

    small, large = made(31), made(70)
    assert set(small.values()) <= set(large.values())
    assert set(small) < set(large)
    assert max(Counter(small.values()).values()) == 2, "one answer, in two rows, of each prompt"


def test_the_same_text_counts_once(world: Path):
    sources = [{"path": str(world / "chat-ratings.jsonl"), "name": name} for name in ("one", "two")]
    entry = {"made": ["conciseness"], "of": ["one", "two"]}
    found = read(recipe_of(world, ratings=[*sources, entry], pairs=[{"path": str(world / "chat-pairs.jsonl")}]))
    facts = facts_of(found, "made-conciseness", "ratings")
    assert len(facts.rows) > 100
    assert facts.drops["repeated"] >= len(facts.rows)
    assert {row.id.split("/")[0] for row in found.ratings["made-conciseness"]} == {"one"}


@pytest.mark.parametrize("seed", range(5))
def test_partners_are_of_other_prompts_and_each_serves_about_once(seed: int):
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, 40, size=200)).astype(np.uint64)
    found = partners(groups, seed=seed)
    assert (found >= 0).all()
    assert (groups[found] != groups).all()
    assert np.bincount(found, minlength=200).max() <= 3
    assert (np.diff(found) < 0).sum() <= 3, "read forwards, but for where it begins again"
    assert partners(groups, seed=seed).tolist() == found.tolist()


def test_without_another_prompt_there_is_no_partner():
    one = np.zeros(5, np.uint64)
    assert partners(one, seed=0).tolist() == [-1] * 5
    assert partners(one[:1], seed=0).tolist() == [-1]
    assert partners(one[:0], seed=0).tolist() == []
    assert partners(np.array([1, 2], np.uint64), seed=0).tolist() == [1, 0]
    mostly = np.array([1] * 9 + [2], np.uint64)
    assert partners(mostly, seed=0)[:9].tolist() == [9] * 9


# -- large sources ---------------------------------------------------------------------------------------------------------------


def test_texts_are_read_forwards_a_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stored_rows, "GROUP", 4000)
    text = "There is much to say about it. It is a thing of many sides, and each has its own. That is all."
    rated = (
        RatedResponse(f"r{i}", prompt_group(m), "s", (*m, Message(role="assistant", content=f"Number {i}. {text}")), {})
        for i in range(600)
        for m in [(Message(role="user", content=f"What is number {i}?"),)]
    )
    stored = RowFolder(tmp_path).store("ratings", rated)
    ordered = stored.grouped(stored.columns.prompts).ordered()
    origin, kinds = Origin("s", ordered, NOBODY, NOBODY), ("relevance", "coherence")
    opened: list[int] = []
    real = stored_rows._File.read

    def counted(file: Any, group: int, names: tuple[str, ...]) -> Any:
        opened.append(group)
        return real(file, group, names)

    monkeypatch.setattr(stored_rows._File, "read", counted)
    surveys = [survey(origin, kinds, seed=0)]
    groups = len(ordered.file.starts)
    assert groups > 20
    assert opened == list(range(groups))
    for place, kind in enumerate(kinds):
        opened.clear()
        (places,) = choose(surveys, place, None).places
        left = Counter[str]()
        found = made_ratings(origin, places, kind, "made", left, seed=0)
        assert sum(1 for _ in found) == 1200
        assert len(opened) <= (2 * groups + 3 if kind == "relevance" else groups)
        assert not +left


def test_what_is_made_passes_one_by_one(rows: Rows, monkeypatch: pytest.MonkeyPatch):
    """Nothing is held: the first row is there before the second answer is looked at."""
    looked: list[str] = []
    real = made_rows.case_of

    def watched(row: Any, other: str = "") -> Any:
        looked.append(row.id)
        return real(row, other)

    monkeypatch.setattr(made_rows, "case_of", watched)
    found = rows.ratings["chat-ratings"]
    places = np.arange(len(found))
    stream = made_ratings(Origin("chat-ratings", found, NOBODY, NOBODY), places, "completeness", "made", Counter(), seed=0)
    next(stream)
    assert len(looked) == 1


# -- harmless prompts ------------------------------------------------------------------------------------------------------------


def test_compliance_is_made_of_sources_that_are_named_harmless(world: Path):
    found = read(recipe_of(world, harmless=["chat-pairs"]))
    compliance = found.ratings["made-compliance"]
    assert {row.id.split("/")[0] for row in compliance} == {"chat-pairs"}
    assert facts_of(found, "made-compliance", "ratings").drops["not-harmless"] > 0
    duty = {row.group for row in found.ratings["duty-ratings"]}
    assert not duty & {row.group for row in compliance}, "prompts that are rated on safety"
    assert duty & {row.group for row in found.ratings["made-relevance"]}, "other kinds are made of them"


def test_sections_may_be_named_harmless(tmp_path: Path):
    write_world(tmp_path)
    for i, row in enumerate(own := read_lines(tmp_path / "chat-pairs.jsonl")):
        row["section"] = ("talk", "refusals")[i % 2]
    write_lines(tmp_path / "chat-pairs.jsonl", own)
    found = read(recipe_of(tmp_path, harmless=["talk"]))
    used = {row.id.removeprefix("chat-pairs/").split("/")[0] for row in found.pairs["contrast-compliance"]}
    talk = {row["id"] for row in own if row["section"] == "talk"}
    assert used
    assert used <= talk
    with pytest.raises(RecipeError, match=r"harmless: 'walk' is neither a source nor a section.*talk"):
        read(recipe_of(tmp_path, harmless=["talk", "walk"]))


def test_names_that_speak_of_safety():
    assert all(
        map(speaks_of_safety, ("beavertails-is_safe", "hh-harmless-train", "pku-saferlhf", "xstest", "refusals", "gptfuzz"))
    )
    assert not any(map(speaks_of_safety, ("just-eval", "mt-bench-overall", "chat", "helpsteer-helpfulness", "hh-helpful", "")))


def test_where_nothing_can_be_made_it_is_said(world: Path):
    sources = [{"path": str(world / f"{name}-ratings.jsonl")} for name in ("chat", "duty")]
    entry = {"made": ["compliance"], "of": ["duty-ratings"]}
    with pytest.raises(DataError, match=r"made-compliance: nothing can be made of duty-ratings \(left out: .*safety-prompt"):
        read(
            recipe_of(
                world, ratings=[*sources, entry], harmless=["duty-ratings"], pairs=[{"path": str(world / "chat-pairs.jsonl")}]
            )
        )


# -- the recipe ------------------------------------------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    return {"made": ["relevance"], "of": ["chat-ratings"], **changes}


@pytest.mark.parametrize(
    ("made", "changes", "said"),
    [
        (entry(made=["relevanse"]), {}, r"ratings.2.made.0: Input should be 'relevance', .*\(got 'relevanse'\)"),
        (
            entry(of=["chat"]),
            {},
            r"ratings: made of 'chat', which is none of the ratings or pairs: name some of chat-pairs, chat-",
        ),
        (entry(of=["small-bench"]), {}, r"ratings: made of 'small-bench', which is none of the ratings or pairs"),
        (entry(of=["made-*"]), {}, r"ratings: made of 'made-\*', which is made itself"),
        (entry(of=[]), {}, r"ratings.2: of: missing"),
        (entry(made=["relevance", "relevance"]), {}, r"ratings.2: made: names one kind twice"),
        (entry(path="x.jsonl"), {}, r"ratings.2: give exactly one of source, path, hub, builtin and made"),
        (entry(section="x", cells="text"), {}, r"ratings.2: made rows have no section and no cells"),
        (entry(share=0.5), {}, r"ratings: `share` is of the weight of pairs"),
        (entry(cap=1), {}, r"ratings: what is made needs a `cap` of 2 or more"),
        (entry(share=1.0), {}, r"ratings.2.share: .*less than 1"),
        ({"path": "x.jsonl", "of": ["y"]}, {}, r"ratings.2: `of` and `share` are for rows that are made"),
        (entry(made=["compliance"]), {"harmless": []}, r"harmless: missing; compliance is made of harmless prompts alone"),
        (
            entry(),
            {"objectives": [{"name": "relevance", "min": 0, "max": 1}]},
            r"objectives: relevance: ratings of that name are made",
        ),
        (entry(), {"bench": [{"name": "b", "source": entry()}]}, r"bench.0: a benchmark is not made of other sources' answers"),
    ],
)
def test_faults_are_found_when_the_recipe_is_read(world: Path, made: dict[str, Any], changes: dict[str, Any], said: str):
    sources = [{"path": str(world / f"{name}-ratings.jsonl")} for name in ("chat", "duty")]
    pairs = [{"path": str(world / "chat-pairs.jsonl")}]
    with pytest.raises(RecipeError, match=rf": 1 fault\n  - {said}"):
        recipe_of(world, ratings=[*sources, made], pairs=pairs, **changes)


def test_names_and_shares_of_several_entries(world: Path):
    ratings, pairs = [{"path": str(world / "chat-ratings.jsonl")}], [{"path": str(world / "chat-pairs.jsonl")}]
    with pytest.raises(RecipeError, match="pairs: named twice: made-relevance"):
        recipe_of(world, ratings=ratings, pairs=[*pairs, entry(), entry()])
    with pytest.raises(RecipeError, match=r"pairs: the shares of what is made come to 1\.2"):
        recipe_of(world, ratings=ratings, pairs=[*pairs, entry(share=0.6), entry(share=0.6, name="more")])
    recipe = recipe_of(world, ratings=ratings, pairs=[*pairs, entry(share=0.2), entry(name="more")])
    assert recipe.pair_shares == [(["made-relevance"], 0.2)]
    assert [list(e.names) for e in recipe.made] == [["made-relevance"], ["more-relevance"]]


def test_a_recipe_comes_back_from_its_own_text(world: Path, tmp_path: Path):
    recipe = recipe_of(world)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe
    assert recipe.load_objectives().names == ("chat-quality", "duty-is-safe", *KINDS)


def test_no_rater_is_needed_at_all(world: Path):
    """Objectives and pairs of answers alone: nobody rated or preferred anything but the one source of pairs, or of ratings."""
    made = [{"made": ["relevance", "completeness"], "of": ["chat-pairs"]}]
    recipe = recipe_of(world, objectives=None, ratings=made, pairs=[{"path": str(world / "chat-pairs.jsonl")}], debias={})
    found = read(recipe)
    assert list(found.ratings) == ["made-relevance", "made-completeness"]
    assert recipe.load_objectives().names == ("relevance", "completeness")
    made = [{"made": ["relevance"], "of": ["chat-ratings"]}]
    recipe = recipe_of(world, ratings=[{"path": str(world / "chat-ratings.jsonl")}], pairs=made)
    assert list(read(recipe).pairs) == ["made-relevance"]


def test_a_dry_run_counts_what_is_made(world: Path, tiny_folder: Path):
    told = plan(made_recipe(world, tiny_folder))
    assert told["harmless"] == ["chat-*"]
    assert {"made": list(KINDS), "of": ["chat-*"], "cap": 60, "share": None} in told["ratings"]
    made = [row for row in told["rows"] if row["source"].startswith(("made-", "contrast-"))]
    assert len(made) == 10
    assert all(row["records"] == row["rows"] + sum(row["left out"].values()) for row in made)


def test_what_is_made_costs_a_pass_for_its_changed_answers(world: Path, rows: Rows):
    recipe = recipe_of(world)
    natural = [f for f in rows.facts if "made-" not in f.name and "contrast" not in f.name]
    whole, plain = (_sizes(recipe, facts, None, 16, []) for facts in (rows.facts, natural))
    assert whole.rated - plain.rated == sum(len(found) for name, found in rows.ratings.items() if "made-" in name)
    assert whole.pairs - plain.pairs == sum(len(found) for name, found in rows.pairs.items() if name != "chat-pairs")
    facts = facts_of(rows, "made-conciseness", "ratings")
    one = _sizes(recipe, [*natural, facts], None, 16, []).tokens - plain.tokens
    letters = sum(len(str(row.messages)) for row in rows.ratings["made-conciseness"])
    assert one == pytest.approx(letters / LETTERS / 2, rel=0.2)


def told_paths(world: Path, *names: str) -> list[dict[str, Any]]:
    return [{"path": str(world / f"{name}-ratings.jsonl")} for name in names]


def test_a_dry_run_of_sources_that_are_elsewhere_says_so(world: Path, tiny_folder: Path):
    ratings = [{"hub": "owner/set", "name": "set"}, *told_paths(world, "chat"), {"made": ["relevance"], "of": ["set"], "cap": 10}]
    told = plan(made_recipe(world, tiny_folder, ratings=ratings, pairs=[{"path": str(world / "chat-pairs.jsonl")}]), priced=True)
    assert "what is made of the sources' answers" in told["not checked"]
    assert not [row for row in told["rows"] if "made" in row["source"]]
    assert told["costs"]["rated"] == 96 + 10


def test_the_world_is_what_the_tests_take_it_for(world: Path):
    assert len(read_lines(world / "chat-ratings.jsonl")) == 96
    first = Case(
        [{"role": "user", "content": prompt(0)}], read_lines(world / "chat-pairs.jsonl")[0]["chosen"], "Something else it is."
    )
    assert not [kind.name for kind in MADE.values() if isinstance(kind.apply(first, seed=0), Reason)]
