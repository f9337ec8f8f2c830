"""The fitted method: its parts together are the paper's formula, and what is saved is read back or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from armorm.errors import CheckpointError
from armorm.fit.method import Fitted, compute_nuisances
from armorm.scorers import AnswerFeatures


@pytest.fixture
def fitted(parts) -> Fitted:
    probe, debias, gate = parts
    return Fitted(probe, "2:mean+final:last", debias, gate)


@pytest.fixture
def answers() -> AnswerFeatures:
    rng = np.random.default_rng(3)
    return AnswerFeatures(
        rng.normal(size=(20, 64)).astype(np.float16), rng.normal(size=(20, 64)).astype(np.float16), np.arange(20) + 1.0
    )


def test_scores_are_the_papers_formula(fitted: Fitted, answers: AnswerFeatures):
    """Reference: equations 1, 2 and 4 in a few lines, row by row."""
    probe, matrix, gate = fitted.probe, fitted.debias.matrix, fitted.gate
    for i, score in enumerate(fitted.scores(answers)):
        x, p = answers.response[i].astype(float), answers.prompt[i].astype(np.float32)
        terms = np.array([*(probe.weights @ x + probe.intercepts), answers.tokens[i]])
        hidden = np.maximum(gate.weights[0] @ p + gate.biases[0], 0)
        logits = (gate.weights[1] @ hidden + gate.biases[1]).astype(float) / gate.temperature
        weights = np.exp(logits) / np.exp(logits).sum()
        assert score == pytest.approx(weights @ (matrix.T @ terms), rel=1e-5)


def test_a_score_is_the_sum_of_its_terms(fitted: Fitted, answers: AnswerFeatures):
    coefficients, terms = fitted.coefficients(answers), fitted.terms(answers)
    assert coefficients.shape == terms.shape == (20, 4)
    np.testing.assert_allclose((coefficients * terms).sum(axis=1), fitted.scores(answers))
    np.testing.assert_array_equal(terms[:, :3], fitted.rewards(answers))
    np.testing.assert_array_equal(terms[:, 3], answers.tokens)
    np.testing.assert_allclose((fitted.weights(answers) * fitted.debiased(answers).values).sum(axis=1), fitted.scores(answers))
    np.testing.assert_allclose(fitted.weights(answers).sum(axis=1), 1)


def test_nuisances_that_are_computed_are_lengths():
    assert compute_nuisances(("response-tokens",), np.array([3.0, 5.0])).tolist() == [[3.0], [5.0]]
    assert compute_nuisances((), np.array([3.0, 5.0])).shape == (2, 0)


def test_what_is_saved_is_read_back_to_the_bit(fitted: Fitted, answers: AnswerFeatures, tmp_path: Path):
    fitted.save(tmp_path)
    read = Fitted.load(tmp_path)
    assert read.feature == fitted.feature
    np.testing.assert_array_equal(read.scores(answers), fitted.scores(answers))
    np.testing.assert_array_equal(read.coefficients(answers), fitted.coefficients(answers))


@pytest.mark.parametrize("name", ["probe", "debias", "gate"])
def test_a_part_that_is_missing_is_named(name: str, fitted: Fitted, tmp_path: Path):
    fitted.save(tmp_path)
    (tmp_path / f"{name}.json").unlink()
    with pytest.raises(CheckpointError, match=rf"{name}\.json.*train again"):
        Fitted.load(tmp_path)
