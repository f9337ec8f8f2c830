"""Steering: weights stay weights whatever a profile asks for, bounds hold, and what can't be is refused with every fault."""

from __future__ import annotations

import inspect
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Parts
from hypothesis import given, settings
from hypothesis import strategies as st

from armorm.bench.aggregate import aggregate_of
from armorm.bench.outcomes import outcomes
from armorm.bench.profiles import profile_comparison
from armorm.data.benchmarks.benchmark import Rule
from armorm.data.rows import BenchmarkItem
from armorm.errors import ObjectiveMismatch, RecipeError, StorageError
from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Constraint, Profile
from armorm.scoring.score import Score
from armorm.scoring.steer import Heads, Steering, fill, nuisances_in

NAMES = ("helpful", "safe", "verbosity", "clear")
CONVERSATIONS = [
    [{"role": "user", "content": "how are you?"}, {"role": "assistant", "content": answer}]
    for answer in ("fine, thank you.", "4")
]


def gates(n: int = 5, k: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.softmax(torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def steered(gate: torch.Tensor, **wishes: object) -> torch.Tensor:
    return Steering(Profile.from_json(wishes), NAMES).apply_gate(gate)


# -- the gate ------------------------------------------------------------------------------------------------------------


def test_an_empty_profile_changes_nothing():
    gate = gates().float()
    assert torch.equal(steered(gate), gate)


def test_scaling_is_scaling_and_a_new_sum():
    gate = gates()
    expected = gate * torch.tensor([1.0, 3.0, 1.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(steered(gate, scale={"safe": 3, "clear": 0.5}), expected / expected.sum(1, keepdim=True))


def test_a_dropped_objective_has_no_weight_and_the_others_keep_their_proportions():
    gate = gates()
    found = steered(gate, drop=["verbosity"])
    assert (found[:, 2] == 0).all()
    torch.testing.assert_close(found[:, 0] / found[:, 1], gate[:, 0] / gate[:, 1])
    torch.testing.assert_close(found.sum(dim=1), torch.ones(5, dtype=torch.float64))


def test_a_fixed_weight_holds_for_every_prompt_and_the_rest_shares_what_is_left():
    gate = gates()
    found = steered(gate, fix={"safe": 0.3})
    torch.testing.assert_close(found[:, 1], torch.full((5,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(found[:, 0] / found[:, 3], gate[:, 0] / gate[:, 3])


def test_everything_fixed():
    found = steered(gates(), fix={"safe": 0.3, "helpful": 0.7}, drop=["verbosity", "clear"])
    torch.testing.assert_close(found, torch.tensor([[0.7, 0.3, 0, 0]], dtype=torch.float64).expand(5, 4))


def test_blending_is_a_mean_of_gate_and_own_weights_whatever_their_size():
    gate = gates()
    own = torch.tensor([2.0, 6.0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(steered(gate, weights={"helpful": 2, "safe": 6}, blend=0.25), 0.75 * gate + 0.25 * own / 8)
    alone = steered(gate, weights={"helpful": 2, "safe": 6}, blend=1)
    torch.testing.assert_close(alone, (own / 8).expand(5, 4), atol=1e-9, rtol=0)


def test_bounds_that_do_not_bind_change_nothing():
    gate = gates()
    torch.testing.assert_close(steered(gate, floor={"safe": 1e-6}, cap={"helpful": 0.999999}), gate, atol=1e-14, rtol=0)


def test_scale_comes_before_the_cap():
    found = steered(gates(), scale={"safe": 100}, cap={"safe": 0.4})
    torch.testing.assert_close(found[:, 1], torch.full((5,), 0.4, dtype=torch.float64))


def test_a_gate_with_a_sum_of_its_own_keeps_it():
    gate = gates()
    torch.testing.assert_close(steered(gate * 7, fix={"safe": 0.3}), 7 * steered(gate, fix={"safe": 0.3}))


def test_a_gate_of_other_objectives_is_refused():
    with pytest.raises(ObjectiveMismatch, match="weighs 3 objectives"):
        steered(gates(k=3), drop=["safe"])


@st.composite
def filled(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    k = draw(st.integers(1, 7))
    total = draw(st.floats(0.0, 1.0))
    base = draw(st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1)), min_size=k, max_size=k))
    lower, upper = np.zeros(k), np.full(k, total)
    for i in range(k):
        if draw(st.booleans()):
            lower[i] = draw(st.floats(0, 1)) * total / k
        if draw(st.booleans()):
            upper[i] = min(total, lower[i] + draw(st.floats(0, 1)))
    upper[draw(st.integers(0, k - 1))] = total  # so that it can be filled
    return tuple(torch.tensor(np.asarray(x), dtype=torch.float64) for x in ([base], lower, upper, total))  # type: ignore[return-value]


@given(filled())
@settings(max_examples=300, deadline=None)
def test_water_filling_sums_up_within_bounds_and_keeps_proportions_between_them(case: tuple[torch.Tensor, ...]):
    base, lower, upper, total = case
    found = fill(base, lower, upper, total)[0]
    assert found.sum().item() == pytest.approx(total.item(), abs=1e-9)
    assert (found >= lower - 1e-12).all()
    assert (found <= upper + 1e-12).all()
    inside = (found > lower + 1e-9) & (found < upper - 1e-9) & (base[0] > 1e-6)
    factors = (found / base[0].clamp_min(1e-12))[inside]
    if len(factors) > 1:
        assert factors.max().item() == pytest.approx(factors.min().item(), rel=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_water_filling_agrees_with_bisection(seed: int):
    rng = np.random.default_rng(seed)
    base, lower = rng.dirichlet(np.ones(6)), rng.uniform(0, 1 / 6, 6)
    upper = np.minimum(1, lower + rng.uniform(0.1, 1, 6))
    upper[0] = 1.0
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * base, lower, upper).sum() < 1 else (low, middle)
    arrays = (torch.from_numpy(x) for x in (base[None], lower, upper))
    found = fill(*arrays, torch.tensor(1.0, dtype=torch.float64))
    np.testing.assert_allclose(found[0].numpy(), np.clip(high * base, lower, upper), atol=1e-8)


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_feasible_profile_gives_weights(seed: int, single: bool):
    rng = np.random.default_rng(seed)
    names = list(rng.permutation(NAMES))
    wishes = {
        "weights": {names[0]: 1.0, names[1]: float(rng.uniform(0, 3))},
        "blend": float(rng.uniform()),
        "scale": {names[0]: float(rng.uniform(0.01, 20))},
        "drop": [names[2]],
        "fix": {names[3]: float(rng.uniform(0, 0.5))},
        "floor": {names[1]: float(rng.uniform(0, 0.4))},
        "cap": {names[0]: float(rng.uniform(0.1, 1))},
    }
    gate = gates(seed=seed)
    found = steered(gate.float() if single else gate, **wishes).double()
    near = 1e-5 if single else 1e-9
    torch.testing.assert_close(found.sum(1), torch.ones(5, dtype=torch.float64), atol=near, rtol=0)
    assert (found >= 0).all()
    column = NAMES.index
    assert (found[:, column(names[2])] == 0).all()
    assert (found[:, column(names[1])] >= wishes["floor"][names[1]] - near).all()
    assert (found[:, column(names[0])] <= wishes["cap"][names[0]] + near).all()


# -- nuisances and constraints -------------------------------------------------------------------------------------------

TRANSFORM = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-0.2, -0.1, 0], [-0.01, -0.02, 0]])  # verbosity zeroed; length computed


def test_nuisances_are_the_rows_that_others_lose():
    assert nuisances_in(TRANSFORM, NAMES[:3], ("length",)) == ("verbosity", "length")


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.5])
def test_a_nuisance_is_taken_out_as_strongly_as_asked(strength: float):
    profile = Profile(nuisances={"verbosity": strength})
    found = Steering.of(profile, NAMES[:3], ("length",), TRANSFORM).matrix(TRANSFORM)
    torch.testing.assert_close(found[2], strength * TRANSFORM[2])
    torch.testing.assert_close(found[[0, 1, 3]], TRANSFORM[[0, 1, 3]])


def test_a_kept_nuisance_keeps_its_own_reward():
    kept = TRANSFORM.clone()
    kept[2, 2] = 1.0
    found = Steering.of(Profile(nuisances={"verbosity": 3, "length": 0}), NAMES[:3], ("length",), kept).matrix(kept)
    torch.testing.assert_close(found[2], torch.tensor([-0.6, -0.3, 1.0]))
    assert (found[3] == 0).all()


def test_a_constraint_costs_its_penalty_for_what_is_missed_and_nothing_where_it_holds():
    rewards = torch.tensor([[0.1, 0.5, 0.9], [0.1, 0.2, 0.4]])
    constraints = [{"objective": "safe", "at_least": 0.3}, {"objective": "verbosity", "at_most": 0.5, "penalty": 2}]
    steering = Steering(Profile.from_json({"constraints": constraints}), NAMES[:3])
    assert steering.labels == ("safe at least 0.3", "verbosity at most 0.5")
    torch.testing.assert_close(steering.shortfalls(rewards), torch.tensor([[0, 0.4], [0.1, 0]]))
    gate = torch.full((2, 3), 1 / 3)
    found = steering.steer(Heads(rewards, gate, gate, rewards), torch.eye(3))
    plain = rewards.mean(dim=1)
    torch.testing.assert_close((found.coefficients * found.terms).sum(1), plain - torch.tensor([0.8, 1.0]))
    torch.testing.assert_close(found.score, plain - torch.tensor([0.8, 1.0]))


# -- profiles ------------------------------------------------------------------------------------------------------------


def test_every_fault_is_told_at_once():
    profile = Profile.from_json(
        {
            "name": "broken",
            "weights": {"helpfull": 1},
            "scale": {"safe": 2},
            "fix": {"safe": 0.8, "helpful": 0.7},
            "drop": ["verbosity", "claer"],
            "floor": {"verbosity": 0.2, "clear": 0.3},
            "cap": {"clear": 0.1},
            "constraints": [{"objective": "safety", "at_least": 0.3}],
            "nuisances": {"length": 2},
        }
    )
    with pytest.raises(RecipeError) as caught:
        profile.check(NAMES, ["verbosity"])
    message = str(caught.value)
    for fault in (
        "weights: there is no objective called 'helpfull'; did you mean 'helpful'?",
        "drop: there is no objective called 'claer'; did you mean 'clear'?",
        "constraints: there is no objective called 'safety'; did you mean 'safe'?",
        "nuisances: there is no nuisance that this model takes out called 'length'",
        "'verbosity' is dropped and stands in floor",
        "'safe' is fixed, so scale can do nothing",
        "'clear': its floor 0.3 is above its cap 0.1",
        "weights: say how much they count",
        "fix: the weights sum to 1.5, more than the whole",
    ):
        assert fault in message, fault
    assert len(message.splitlines()) == 9
    assert all(line.startswith("profile broken: ") for line in message.splitlines())


@pytest.mark.parametrize(
    ("wishes", "fault"),
    [
        ({"drop": NAMES}, "every objective is dropped and no objective is left"),
        ({"fix": {"safe": 0.4}, "drop": ["helpful", "verbosity", "clear"]}, "sum to 0.4 and no objective is left"),
        ({"fix": {"safe": 0.4}, "floor": {"helpful": 0.7}}, "fixed weights and floors sum to 1.1"),
        ({"cap": dict.fromkeys(NAMES, 0.2)}, "caps sum to 0.8"),
        ({"blend": 0.5}, "no weights to blend the gate with"),
        ({"weights": {"safe": 0.0}, "blend": 1}, "all are 0"),
        ({"weights": {"safe": 1.0}, "blend": 1, "drop": ["safe"]}, "is dropped and has a weight of its own"),
        ({"constraints": [{"objective": "safe", "at_least": 0.5}, {"objective": "safe", "at_most": 0.4}]}, "can't both hold"),
        ({"constraints": [{"objective": "safe", "at_least": 0.5}] * 2}, "'safe at least 0.5' stands twice"),
    ],
)
def test_wishes_that_cannot_hold_together(wishes: dict[str, object], fault: str):
    with pytest.raises(RecipeError, match=fault):
        Steering(Profile.from_json(wishes), NAMES)


@pytest.mark.parametrize(
    ("wishes", "fault"),
    [
        ({"scael": {"safe": 2}}, "scael: no such key; did you mean 'scale'?"),
        ({"constraints": [{"objective": "safe", "at_leats": 1}]}, "at_leats: no such key; did you mean 'at_least'?"),
        ({"constraints": [{"objective": "safe"}]}, "give one of at_least and at_most"),
        ({"fix": {"safe": 1.5}}, "fix.safe: Input should be less than or equal to 1"),
        ({"scale": {"safe": 0}}, "scale.safe: Input should be greater than 0"),
        ({"scale": {"safe": float("nan")}}, "scale.safe: Input should be"),
        ({"nuisances": {"length": -1}}, "nuisances.length: Input should be greater than or equal to 0"),
        (None, "expected keys and values such as `drop: \\[verbosity\\]`, got nothing"),
        ([1], "got a list"),
    ],
)
def test_fields_of_the_wrong_kind(wishes: object, fault: str):
    with pytest.raises(RecipeError, match=fault):
        Profile.from_json(wishes)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
@settings(max_examples=100, deadline=None)
def test_any_json_is_a_profile_or_an_error_of_ours(facts: object):
    for wishes in (facts, {"constraints": facts, "scale": facts}):
        with suppress(RecipeError):
            assert Profile.from_json(wishes).fingerprint


def test_a_profile_goes_to_yaml_and_comes_back(tmp_path: Path):
    profile = Profile(
        name="größer", fix={"safe": 0.3}, constraints=(Constraint(objective="safe", at_least=0.3),), drop=("clear",)
    )
    profile.to_yaml(tmp_path / "p.yaml")
    assert Profile.from_yaml(tmp_path / "p.yaml") == profile
    assert not list(tmp_path.glob("*.part"))
    assert profile.fingerprint == profile.model_copy(update={"name": "other"}).fingerprint
    assert profile.fingerprint != profile.model_copy(update={"drop": ()}).fingerprint
    with pytest.raises(StorageError, match="can't be written"):
        profile.to_yaml(tmp_path / "p.yaml" / "p.yaml")


def test_a_file_names_its_profile_and_its_faults(tmp_path: Path):
    file = tmp_path / "careful.yaml"
    file.write_text("scale: {safe: 2}")
    assert Profile.from_yaml(file).name == "careful"
    for text, fault in (("a: [", "is not YAML"), ("", "got nothing"), ("scale: {safe: x}", "scale.safe")):
        file.write_text(text)
        with pytest.raises(RecipeError, match=fault):
            Profile.from_yaml(file)
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(RecipeError, match="UTF-8"):
        Profile.from_yaml(file)
    with pytest.raises(RecipeError, match="No such file"):
        Profile.from_yaml(tmp_path / "none.yaml")


def test_the_worked_profiles_can_be_read():
    found = sorted((Path(__file__).parents[1] / "recipes" / "profiles").glob("*.yaml"))
    assert len(found) == 2
    for file in found:
        profile = Profile.from_yaml(file)
        assert profile.description
        profile.check(sorted(_named(profile)))


def _named(profile: Profile) -> set[str]:
    columns = (profile.weights, profile.scale, profile.drop, profile.floor, profile.cap, profile.fix)
    return {"any other", *(n for c in columns for n in c), *(c.objective for c in profile.constraints)}


# -- in the model --------------------------------------------------------------------------------------------------------


def test_contributions_sum_to_the_score_under_a_profile(tiny_model: RewardModel):
    profile = Profile.from_json(
        {
            "name": "careful",
            "fix": {"safe": 0.5},
            "drop": ["verbosity"],
            "nuisances": {"response-tokens": 2},
            "constraints": [{"objective": "safe", "at_least": 5.0}, {"objective": "helpful", "at_least": -50}],
        }
    )
    plain, found = tiny_model.score(CONVERSATIONS), tiny_model.score(CONVERSATIONS, profile=profile)
    for before, after in zip(plain, found, strict=True):
        assert sum(after.contributions.values()) == pytest.approx(after.score, abs=1e-9)
        assert after.gate["safe"] == pytest.approx(0.5, abs=1e-6)
        assert after.gate["verbosity"] == 0
        assert after.gate_as_trained == before.gate
        assert after.profile == "careful"
        assert after.rewards == before.rewards
        assert after.constraints == ("safe at least 5", "helpful at least -50")
        assert after.contributions["safe at least 5"] == pytest.approx(-10 * (5 - after.rewards["safe"]), rel=1e-5)
        assert after.contributions["helpful at least -50"] == 0
        assert after.score != pytest.approx(before.score, abs=1e-3)


def test_an_empty_profile_scores_as_none(tiny_model: RewardModel):
    plain, found = tiny_model.score(CONVERSATIONS), tiny_model.score(CONVERSATIONS, profile=Profile())
    assert [s.score for s in found] == [s.score for s in plain]


def test_a_profile_that_does_not_fit_is_refused_before_anything_runs(tiny_model: RewardModel):
    with pytest.raises(RecipeError, match="did you mean 'safe'"):
        tiny_model.score(CONVERSATIONS, profile=Profile(drop=("save",)))


def test_a_baked_profile_is_saved_loaded_and_steers_forward_too(assembled: object, parts: Parts, tmp_path: Path):
    model: RewardModel = assembled(*parts)  # type: ignore[operator]
    profile = Profile(name="careful", fix={"safe": 0.9}, constraints=(Constraint(objective="safe", at_least=5),))
    expected = model.score(CONVERSATIONS, profile=profile)
    plain = model.score(CONVERSATIONS)
    model.config.profile = profile.to_json()
    model.save_pretrained(tmp_path)
    assert Profile.from_yaml(tmp_path / "profile.yaml") == profile
    loaded = RewardModel.from_pretrained(tmp_path)
    found = loaded.score(CONVERSATIONS)
    assert [s.to_json() for s in found] == [s.to_json() for s in expected]
    assert [s.score for s in loaded.score(CONVERSATIONS, profile=Profile())] == [s.score for s in plain]
    ids = [torch.tensor([loaded.renderer.render(c).ids]) for c in CONVERSATIONS]
    assert [loaded(i).score.item() for i in ids] == pytest.approx([s.score for s in expected], abs=1e-4)


def test_scores_have_room_for_a_profile():
    assert {"profile", "gate_as_trained", "constraints"} <= set(inspect.signature(Score).parameters)


# -- what a profile brings -----------------------------------------------------------------------------------------------


def test_a_profile_is_compared_section_by_section():
    asked = ({"role": "user", "content": "hello"},)
    items = [BenchmarkItem(f"i{i}", f"g{i}", "bench", asked, ("a",), ("b",), subset="s" if i % 2 else "t") for i in range(40)]
    right, wrong = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    before = [right if i % 2 else wrong for i in range(40)]
    after = [right if i % 2 or i % 4 == 0 else wrong for i in range(40)]
    found = (outcomes(Rule.PAIRS, items, scores) for scores in (before, after))
    rows = profile_comparison(*found, [aggregate_of(items)], seed=0)
    by_name = {row.name: row for row in rows}
    assert [row.level for row in rows] == ["overall", "section", "section"]
    assert by_name["overall"].difference.value == pytest.approx(0.25)
    assert by_name["t"].difference.value == pytest.approx(0.5)
    assert (by_name["t"].gained, by_name["t"].lost) == (10, 0)
    assert by_name["t"].p < 0.01
    assert by_name["s"].difference.value == 0
    assert (by_name["s"].base.value, by_name["s"].steered.value) == (1.0, 1.0)
