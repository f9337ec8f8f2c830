"""The strength of the gate's penalty is chosen on what is left out: sources or clusters, by log-loss and one standard error."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_expit

from armorm.errors import FitError
from armorm.features.columns import Held
from armorm.fit import gate_choice
from armorm.fit.debias import DebiasedRewards
from armorm.fit.gate import GateSettings, fit_gate
from armorm.fit.gate_choice import (
    FEWEST_PAIRS,
    MOST_PARTS,
    STEPS,
    STRENGTHS,
    KlChoice,
    Parts,
    choose_kl,
    parts_to_leave_out,
)
from armorm.objectives import Objective, Objectives

TWO = Objectives([Objective(name=name, min=0, max=1) for name in ("a", "b")])
SETTINGS = GateSettings(
    hidden=8, hidden_layers=1, steps=150, batch_size=64, learning_rate=1e-2, evaluate_every=25, start="one-weight", kl="auto"
)


def world(*, general, sources=4, pairs=90, seed=0):
    """Pairs of sources that differ in where their prompts are. In a `general` world a prompt's second feature says which
    objective counts, whatever its source; else the source alone does, and a new source follows neither of its neighbours."""
    rng = np.random.default_rng(seed)
    which = np.repeat(np.arange(sources), pairs)
    prompts = rng.normal(size=(len(which), 5))
    prompts[:, 0] += 8 * which
    asked = prompts[:, 1] > 0 if general else which % 2 == 1
    one, two = rng.uniform(size=(2, len(which), 2))
    gap = np.where(asked, (one - two)[:, 1], (one - two)[:, 0])
    better = (rng.uniform(size=len(which)) < 1 / (1 + np.exp(-12 * gap)))[:, None]
    chosen, rejected = DebiasedRewards(np.where(better, one, two)), DebiasedRewards(np.where(better, two, one))
    names, groups = [f"source-{i}" for i in which], [f"p{i}" for i in range(len(which))]
    return prompts, chosen, rejected, np.arange(len(which)) % 5 == 0, names, groups


def choose(given, settings=SETTINGS, **more):
    prompts, chosen, rejected, validation, sources, groups = given
    parts = parts_to_leave_out(prompts, sources, groups, seed=0)
    args = (prompts, chosen, rejected, validation, TWO)
    return choose_kl(*args, parts=parts, sources=sources, groups=groups, settings=settings, seed=0, **more)


def choice_of(losses):
    losses = np.array(losses)
    parts = Parts("sources", tuple("abcdefgh"[: losses.shape[1]]), np.zeros(0, dtype=np.int64))
    return KlChoice(parts, STRENGTHS, losses, np.full(losses.shape, 0.5))


# -- the choice ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt():
    told = []
    found = choose(world(general=True), progress=lambda done, everything: told.append((done, everything)))
    return found, told


def test_a_gate_that_holds_everywhere_is_let_go(learnt):
    found, _ = learnt
    assert found.parts.kind == "sources"
    assert found.parts.names == ("source-0", "source-1", "source-2", "source-3")
    assert found.parts.sizes == (90,) * 4
    assert STRENGTHS[found.chosen] < 3
    more, error = found.excess(len(STRENGTHS) - 1, found.best)
    assert more > 2 * error > 0


def test_a_gate_that_has_learnt_the_sources_is_held():
    found = choose(world(general=False))
    assert STRENGTHS[found.chosen] >= 1
    assert found.losses[0].mean() > found.losses[-1].mean()


def test_progress_counts_trainings(learnt):
    _, told = learnt
    assert told == sorted(told)
    assert told[-1] == (4 * len(STRENGTHS), 4 * len(STRENGTHS))


def test_a_loss_is_that_of_a_gate_trained_without_the_part(learnt):
    found, _ = learnt
    prompts, chosen, rejected, validation, sources, _ = world(general=True)
    rest = np.array([name != "source-2" for name in sources])
    sides = [DebiasedRewards(side.values[rest]) for side in (chosen, rejected)]
    settings = replace(SETTINGS, kl=0.3)
    gate = fit_gate(prompts[rest], *sides, validation[rest], TWO, settings=settings, seed=0).gate
    margins = (gate.weights_for(prompts[~rest]) * (chosen.values - rejected.values)[~rest]).sum(axis=1)
    least = min(-log_expit(beta * margins).mean() for beta in np.geomspace(0.1, 1000, 400))
    assert found.losses[STRENGTHS.index(0.3), 2] == pytest.approx(least, abs=1e-4)
    assert found.accuracies[STRENGTHS.index(0.3), 2] == pytest.approx((margins > 0).mean())


def test_the_same_seed_chooses_the_same(learnt):
    found, _ = learnt
    again = choose(world(general=True))
    assert again.losses.tolist() == found.losses.tolist()


def test_the_strongest_within_one_standard_error_of_the_paired_difference_is_taken():
    # In every part 0.3 is the least, 1 a little above it in some, 3 above it in all, by the same
    hard = np.array([0.1, 0.3, 0.5, 0.6])  # how hard a part is: all strengths share it
    even = [hard + more for more in (0.02, 0.01, 0.0)]
    found = choice_of([*even, hard + np.array([0.004, -0.003, 0.004, -0.002]), hard + 0.005, hard + 0.006])
    assert (found.best, found.chosen) == (2, 3)
    more, error = found.excess(3, 2)
    assert more == pytest.approx(0.00075)
    assert error == pytest.approx(np.std([0.004, -0.003, 0.004, -0.002], ddof=1) / 2)
    assert more < error < hard.std(ddof=1) / 2  # the error of a mean by itself would have taken no gate


def test_where_all_are_alike_there_is_no_gate():
    assert choice_of(np.full((6, 3), 0.6)).chosen == 5


def test_each_part_counts_alike():
    losses = np.tile([[0.6, 0.6, 0.6]], (6, 1))
    losses[0] = [0.5, 0.62, 0.62]  # better on one, worse on two
    assert choice_of(losses).best == 0


# -- the parts -----------------------------------------------------------------------------------------------------------------


def test_few_sources_or_one_that_holds_most_give_clusters_of_prompts():
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(3), 60)
    prompts = rng.normal(size=(180, 4)) + 50 * which[:, None]
    groups = [f"p{i // 2}" for i in range(180)]  # two pairs of each prompt
    for sources in (
        ["one"] * 180,
        ["a"] * 90 + ["b"] * 90,
        ["a"] * 130 + ["b"] * 25 + ["c"] * 25,
        ["a"] * 90 + ["b"] * 75 + ["c"] * 15,
    ):
        found = parts_to_leave_out(prompts, sources, groups, seed=0)
        assert found.kind == "clusters"
        assert 2 <= len(found.names) <= gate_choice.CLUSTERS
        assert all(len({(found.of[i], found.of[i + 1])}) == 1 and found.of[i] == found.of[i + 1] for i in range(0, 180, 2))
        assert all(len(set(which[found.of == part])) == 1 for part in range(len(found.names)))  # never across the far apart
    assert parts_to_leave_out(prompts, list("abc") * 60, groups, seed=0).kind == "sources"
    again = parts_to_leave_out(Held(prompts.astype(np.float16)), ["one"] * 180, groups, seed=0)
    assert again.names == parts_to_leave_out(prompts.astype(np.float16), ["one"] * 180, groups, seed=0).names


def test_many_sources_are_left_out_several_at_a_time():
    rng = np.random.default_rng(0)
    sources = [f"s{i:02d}" for i in range(30) for _ in range(4 + i)]
    found = parts_to_leave_out(rng.normal(size=(len(sources), 3)), sources, [str(i) for i in range(len(sources))], seed=0)
    assert found.kind == "sources"
    assert len(found.names) == MOST_PARTS
    assert sum(found.sizes) == len(sources)
    assert max(found.sizes) - min(found.sizes) <= 10
    named = [name for names in found.names for name in names.split(", ")]
    assert sorted(named) == sorted(set(sources))


def test_small_sources_are_always_trained_on():
    sources = ["a"] * 40 + ["b"] * 40 + ["c"] * 40 + ["d"] * (FEWEST_PAIRS - 1)
    found = parts_to_leave_out(np.zeros((len(sources), 2)), sources, [str(i) for i in range(len(sources))], seed=0)
    assert found.names == ("a", "b", "c")
    assert (found.of[-19:] == -1).all()


@pytest.mark.parametrize("n", [0, 1, 39])
def test_with_too_few_pairs_there_is_no_gate(n):
    given = world(general=True, sources=1, pairs=n)
    found = choose(given)
    assert found.parts.names == ()
    assert STRENGTHS[found.chosen] == math.inf


def test_pairs_on_one_prompt_leave_nothing_to_leave_out():
    prompts, *rest, sources, _ = world(general=True, sources=1, pairs=100)
    assert choose((prompts, *rest, sources, ["the same"] * 100)).parts.names == ()


def test_a_prompt_is_never_on_both_sides(monkeypatch):
    prompts, chosen, rejected, validation, sources, groups = world(general=True, sources=3, pairs=40)
    groups[0], groups[40], groups[80] = "shared", "shared", "shared"
    seen = []

    def fit(given, *args, settings, **more):
        seen.append(len(given))
        return fit_gate(given, *args, settings=settings, **more)

    monkeypatch.setattr(gate_choice, "fit_gate", fit)
    choose((prompts, chosen, rejected, validation, sources, groups), replace(SETTINGS, steps=1, evaluate_every=1))
    assert set(seen) == {78}  # two sources of 40, but for the prompt that the third has too


def test_a_part_without_which_nothing_is_left_to_learn_from_is_passed_over():
    prompts, chosen, rejected, _, sources, groups = world(general=True, sources=3, pairs=40)
    for name in ("source-0", "source-1"):
        at = [i for i, source in enumerate(sources) if source == name]
        rejected.values[at] = chosen.values[at]  # in these nothing differs
    found = choose((prompts, chosen, rejected, np.arange(120) % 5 == 0, sources, groups), replace(SETTINGS, steps=1))
    assert found.parts.names == ("source-0", "source-1")
    assert sorted(set(found.parts.of.tolist())) == [-1, 0, 1]


def test_the_choice_takes_one_seed_and_few_steps(monkeypatch):
    seen = []

    def fit(*args, settings, **more):
        seen.append(settings)
        return fit_gate(*args, settings=replace(settings, steps=1), **more)

    monkeypatch.setattr(gate_choice, "fit_gate", fit)
    choose(world(general=True, sources=3, pairs=30), replace(SETTINGS, steps=10_000, seeds=5, combine="mean", hidden=4))
    assert {(one.steps, one.seeds, one.combine, one.hidden) for one in seen} == {(STEPS, 1, "best", 4)}
    assert [one.strength for one in seen[:6]] == list(STRENGTHS)


def test_prompts_that_are_not_finite_are_named():
    prompts, *rest = world(general=True, sources=1, pairs=100)
    prompts[3, 1] = np.nan
    with pytest.raises(FitError, match="NaN or infinite: extract them again"):
        choose((prompts, *rest))
