"""Equal shares for prompts or sources, and losses that count pairs by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from armorm.errors import FitError
from armorm.fit.debias import DebiasedRewards
from armorm.fit.gate import GateSettings, fit_constant_gate, fit_gate
from armorm.fit.gate_settings import Weigh
from armorm.fit.weighing import pair_weights
from armorm.objectives import Objective, Objectives
from armorm.rivals.bradley_terry import fit_bradley_terry

TWO = Objectives([Objective(name=name, min=0, max=1) for name in ("a", "b")])
SETTINGS = GateSettings(
    hidden=8, hidden_layers=1, steps=60, batch_size=4096, scale_init=2.0, evaluate_every=20, standardize=False
)


def test_shares_are_equal_on_each_side_and_their_mean_is_one():
    prompts = ["p"] * 6 + ["q"] * 2 + ["r", "s"] + ["t"] * 3
    validation = np.array([False] * 9 + [True] * 4)
    found = pair_weights("prompts", prompts, ["x"] * 13, validation)
    assert found is not None
    shares = {p: found[[i for i, q in enumerate(prompts) if q == p]].sum() for p in "pqrst"}
    assert shares == pytest.approx({"p": 3, "q": 3, "r": 3, "s": 2, "t": 2})
    assert found[~validation].mean() == pytest.approx(1)
    assert found[validation].mean() == pytest.approx(1)


def test_a_source_on_both_sides_has_its_share_on_each():
    sources = ["big"] * 90 + ["small"] * 10
    validation = np.arange(100) % 5 == 0
    found = pair_weights("sources", [str(i) for i in range(100)], sources, validation)
    assert found is not None
    for side in (validation, ~validation):
        big = np.array(sources)[side] == "big"
        assert found[side][big].sum() == pytest.approx(found[side][~big].sum())


def test_pairs_have_no_weights_and_a_side_may_be_empty():
    assert pair_weights("pairs", ["p"], ["x"], np.array([False])) is None
    found = pair_weights("prompts", ["p", "p", "q"], ["x"] * 3, np.zeros(3, dtype=bool))
    np.testing.assert_allclose(found, [0.75, 0.75, 1.5])


@pytest.mark.parametrize("weigh", ["pairs", "prompts", "sources"])
def test_sources_with_a_share_have_it_together_whatever_their_number(weigh: Weigh):
    sources = np.array(["own"] * 60 + ["made-a"] * 90 + ["made-b"] * 30 + ["made-c"] * 20)
    prompts = [str(i % 7) for i in range(200)]
    validation = np.arange(200) % 4 == 0
    found = pair_weights(weigh, prompts, sources.tolist(), validation, [(["made-a", "made-b"], 0.25), (["made-c"], 0.05)])
    assert found is not None
    for side in (validation, ~validation):
        total = found[side].sum()
        assert total == pytest.approx(side.sum())
        shares = [found[side & np.isin(sources, names)].sum() / total for names in (["own"], ["made-a", "made-b"], ["made-c"])]
        assert shares == pytest.approx([0.7, 0.25, 0.05])
    for name in ("own", "made-c"):  # among themselves as without shares
        alone = sources == name
        plain = pair_weights(
            weigh, [p for p, a in zip(prompts, alone, strict=True) if a], [name] * alone.sum(), validation[alone]
        )
        wanted = np.ones(alone.sum()) if plain is None else plain
        for side in (validation[alone], ~validation[alone]):
            np.testing.assert_allclose(found[alone][side] / found[alone][side].mean(), wanted[side])
    if weigh == "sources":
        a, b = (found[~validation & (sources == name)].sum() for name in ("made-a", "made-b"))
        assert a == pytest.approx(b)


def test_a_share_that_no_pair_of_a_side_has_is_the_others():
    sources, validation = ["own"] * 4 + ["made"] * 4, np.array([True] * 2 + [False] * 6)
    found = pair_weights("pairs", ["p"] * 8, sources, validation, [(["made"], 0.1), (["absent"], 0.5)])
    assert found is not None
    np.testing.assert_allclose(found[:2], [1, 1])
    assert found[4:].sum() / found[2:].sum() == pytest.approx(0.1 / 0.5)
    assert found[2:].mean() == pytest.approx(1)
    only = pair_weights("pairs", ["p"] * 2, ["made"] * 2, np.array([False, False]), [(["made"], 0.1)])
    np.testing.assert_allclose(only, [1, 1])  # type: ignore[arg-type]


def pairs(seed: int = 0):
    """One prompt with 400 pairs that want objective b, and 80 prompts with a pair each that want objective a."""
    rng = np.random.default_rng(seed)
    one, two = rng.uniform(size=(2, 480, 2))
    wants = np.where(np.arange(480) < 400, 1, 0)
    better = np.take_along_axis(one - two, wants[:, None], axis=1)[:, 0] > 0
    chosen, rejected = np.where(better[:, None], one, two), np.where(better[:, None], two, one)
    groups = ["crowd"] * 400 + [f"p{i}" for i in range(80)]
    return DebiasedRewards(chosen), DebiasedRewards(rejected), groups, np.zeros(480, dtype=bool)


def test_one_weight_vector_follows_prompts_rather_than_pairs():
    chosen, rejected, groups, validation = pairs()
    by_pairs = fit_constant_gate(chosen, rejected, validation, TWO)
    by_prompts = fit_constant_gate(chosen, rejected, validation, TWO, weights=pair_weights("prompts", groups, groups, validation))
    assert by_pairs.weights_for(np.zeros((1, 0)))[0, 1] > 0.7
    assert by_prompts.weights_for(np.zeros((1, 0)))[0, 0] > 0.7


def test_a_gate_with_weights_is_the_one_of_repeated_pairs():
    """Law: a pair with weight 2 counts as two."""
    rng = np.random.default_rng(1)
    prompts = rng.normal(size=(60, 3)).astype(np.float32)
    chosen, rejected = rng.normal(size=(2, 60, 2))
    counts = rng.integers(1, 4, 60)
    twice = np.repeat(np.arange(60), counts)
    none = np.zeros(60, dtype=bool)
    weighed = fit_gate(
        prompts,
        DebiasedRewards(chosen),
        DebiasedRewards(rejected),
        none,
        TWO,
        settings=SETTINGS,
        seed=0,
        weights=counts / counts.mean(),
    )
    repeated = fit_gate(
        prompts[twice],
        DebiasedRewards(chosen[twice]),
        DebiasedRewards(rejected[twice]),
        none[twice],
        TWO,
        settings=SETTINGS,
        seed=0,
    )
    np.testing.assert_allclose(weighed.curves[0].train_loss, repeated.curves[0].train_loss, rtol=1e-4)
    np.testing.assert_allclose(weighed.gate.weights_for(prompts), repeated.gate.weights_for(prompts), atol=1e-3)


def test_weights_of_one_change_nothing():
    chosen, rejected, _, validation = pairs()
    prompts = np.random.default_rng(0).normal(size=(480, 3)).astype(np.float32)
    validation = np.arange(480) % 4 == 0
    plain, ones = (
        fit_gate(prompts, chosen, rejected, validation, TWO, settings=SETTINGS, seed=0, weights=w) for w in (None, np.ones(480))
    )
    assert plain.curves == ones.curves


def test_the_rival_is_weighed_alike():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 4))
    wants = np.where(np.arange(300) < 250, 1, 0)
    x *= np.sign(x[np.arange(300), wants])[:, None]
    groups, validation = ["crowd"] * 250 + [f"p{i}" for i in range(50)], np.arange(300) % 5 == 0
    sides = [("x", x, np.zeros_like(x))]
    by_pairs = fit_bradley_terry(sides, validation).weights
    by_prompts = fit_bradley_terry(sides, validation, weights=pair_weights("prompts", groups, groups, validation)).weights
    assert by_pairs[1] > by_pairs[0]
    assert by_prompts[0] > by_prompts[1]


def test_a_word_that_is_none_is_refused():
    settings = replace(SETTINGS)
    object.__setattr__(settings, "weigh", "rows")
    with pytest.raises(FitError, match="weigh must be one of pairs, prompts, sources, got"):
        settings.__post_init__()
