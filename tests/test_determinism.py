"""The same recipe, seed and machine give the same bytes in any process, and the same numbers but for rounding in any batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_run import write_recipe, write_rows
from torture.numbers import differing, numbers

TOLERANCE = 1e-5
"""As docs/reliability.md states it, for float32: relative to the largest value of each tensor."""


def trained(recipe: Path, out: Path, **environment: str) -> Path:
    """A run in a process of its own."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "armorm", "train", str(recipe), "--out", out.name, "--quiet"]
    ended = subprocess.run(command, cwd=out.parent, env=surroundings, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return out


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Path, Path]:
    """The rows' folder, and a run with one thread and one hash seed."""
    home = tmp_path_factory.mktemp("determinism")
    write_rows(home / "rows")
    recipe = write_recipe(home / "rows", tiny_folder, features={"shard_rows": 16})
    return recipe, trained(recipe, home / "one", PYTHONHASHSEED="1")


def tensors_of(run: Path, kind: str) -> dict[str, np.ndarray]:
    """Every tensor of the run's files of a kind, by its place without the store's key."""
    found = {}
    for path in sorted(run.glob(kind)):
        for name, tensor in load_file(path).items():
            found[f"{path.relative_to(run)}:{name}"] = tensor
    return found


def largest_difference(one: Path, other: Path, kind: str) -> float:
    """Over all tensors of the files, relative to each one's largest value."""
    before, after = tensors_of(one, kind), tensors_of(other, kind)
    assert before
    assert before.keys() == after.keys()
    shares = []
    for name, known in before.items():
        if known.dtype.kind == "f":
            same = (known == after[name]) | (np.isnan(known) & np.isnan(after[name]))  # infinities and NaN among them
            apart = np.abs(np.where(same, 0, known) - np.where(same, 0, after[name]))
            largest = np.abs(known[np.isfinite(known)]).max(initial=1e-9)
            shares.append(float(apart.max(initial=0) / largest))
    return max(shares)


@pytest.mark.slow
def test_two_processes_with_other_hash_seeds_write_the_same_bytes(first: tuple[Path, Path], tmp_path: Path):
    recipe, one = first
    two = trained(recipe, tmp_path / "two", PYTHONHASHSEED="2")
    assert not differing(numbers(one), numbers(two))
    weights = [p.relative_to(one) for p in sorted(one.rglob("*.safetensors"))]
    assert len(weights) >= 25
    assert [str(w) for w in weights if (one / w).read_bytes() != (two / w).read_bytes()] == []


@pytest.mark.slow
@pytest.mark.parametrize("way", ["two threads", "small batches"])
def test_threads_and_batches_move_numbers_by_rounding_alone(first: tuple[Path, Path], tmp_path: Path, way: str):
    recipe, one = first
    if way == "small batches":
        text = recipe.read_text(encoding="utf-8")
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(text.replace("shard_rows: 16", "shard_rows: 16\n  batch_tokens: 128"), encoding="utf-8")
    other = trained(recipe, tmp_path / "other", OMP_NUM_THREADS="2" if way == "two threads" else "1")
    assert largest_difference(one, other, "features/*/shard-*.safetensors") <= TOLERANCE
    for kind in ("probe/*.safetensors", "debias/*.safetensors", "gate/*.safetensors", "model/model.safetensors"):
        assert largest_difference(one, other, kind) <= TOLERANCE, kind
