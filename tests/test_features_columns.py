"""Columns on disk: any rows in any order are those of the whole, exactly, over shards, stores and parts; damage is named."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from armorm.errors import CheckpointError
from armorm.features.columns import BLOCK, Column, Held, Rows, blocks, gathered, tensors_in

SIZES = (5, 1, 0, 40, 3)
WIDTH = 6


def written(folder: Path, dtype: torch.dtype, *, seed: int = 0) -> tuple[Column, np.ndarray]:
    """Two parts of 6 columns each over shards of several sizes; and the same in memory."""
    generator = torch.Generator().manual_seed(seed)
    pieces, whole = [], []
    for i, n in enumerate(SIZES):
        parts = {name: (100 * torch.randn(n, WIDTH, generator=generator)).to(dtype) for name in ("one", "two")}
        place = folder / f"{seed}-{i}.safetensors"
        save_file({**parts, "other": torch.arange(n)}, place)
        tensors = tensors_in(place)
        pieces.append((tensors["one"], tensors["two"]))
        whole.append(torch.cat([parts["one"], parts["two"]], dim=1).float().numpy())
    return Column(pieces, 2 * WIDTH), np.concatenate(whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_any_rows_are_those_of_the_whole_exactly(tmp_path: Path, dtype: torch.dtype):
    column, whole = written(tmp_path, dtype)
    n, rng = len(whole), np.random.default_rng(0)
    assert (column.shape, len(column), column.dtype) == ((49, 12), 49, dtype)
    wanted = [np.arange(n), np.arange(n)[::-1], np.array([], dtype=np.int64), np.array([45, 0, 45, 5]), np.array([6, 44])]
    for at in [*wanted, *(rng.integers(0, n, size=size) for size in (1, 7, 300))]:
        rows = column.rows(at)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, whole[at])
        stored = column.stored(at)
        assert stored.dtype == dtype
        np.testing.assert_array_equal(stored.float().numpy(), whole[at])


def test_what_is_taken_is_read_later_and_may_be_taken_from_again(tmp_path: Path):
    column, whole = written(tmp_path, torch.bfloat16)
    taken = column.take(np.array([48, 3, 3, 20, 7]))
    np.testing.assert_array_equal(taken.rows(np.array([4, 0])), whole[[7, 48]])
    np.testing.assert_array_equal(taken.take(np.array([1, 3])).rows(np.arange(2)), whole[[3, 20]])
    np.testing.assert_array_equal(taken.over(lambda block: block.sum(axis=1)), whole[[48, 3, 3, 20, 7]].sum(axis=1))


@pytest.mark.parametrize("same", [True, False], ids=["of the same files", "of others"])
def test_rows_less_other_rows_are_the_differences(tmp_path: Path, same: bool):
    column, whole = written(tmp_path, torch.bfloat16)
    other, apart = (column, whole) if same else written(tmp_path, torch.bfloat16, seed=1)
    one, two, at = np.arange(0, 48, 2), np.arange(1, 48, 2)[::-1].copy(), np.array([3, 0, 20])
    found = column.take(one).less(other.take(two), at)
    np.testing.assert_array_equal(found, whole[one[at]] - apart[two[at]])
    np.testing.assert_array_equal(Held(whole[one]).less(Held(apart[two]), at), found)


def test_columns_of_unlike_types_are_read_in_float32(tmp_path: Path):
    one, first = written(tmp_path, torch.bfloat16)
    two, second = written(tmp_path, torch.float16, seed=1)
    both = Column([*one._pieces, *two._pieces], 2 * WIDTH)
    assert both.dtype == torch.float32
    np.testing.assert_array_equal(both.rows(np.arange(98)), np.concatenate([first, second]))


def test_a_column_without_rows_has_its_width():
    none = Column([], 4)
    assert (none.shape, none.rows(np.arange(0)).shape) == ((0, 4), (0, 4))
    assert none.over(lambda block: block[:, :2]).shape == (0, 2)
    assert [len(at) for at in blocks(0)] == [0]


def test_arrays_are_gathered_and_none_of_them_is_kept():
    made: list[weakref.ref[np.ndarray]] = []

    def parts() -> Iterator[np.ndarray]:
        for i, n in enumerate((3, 0, 2)):
            assert all(one() is None for one in made[:-1])  # the last one is in hand
            part = np.full((n, 2), i, dtype=np.int32)
            made.append(weakref.ref(part))
            yield part
            del part

    found = gathered(parts(), 5)
    assert found.dtype == np.int32
    assert found.tolist() == [[0, 0], [0, 0], [0, 0], [2, 2], [2, 2]]
    assert gathered(iter([]), 0).shape == (0,)
    for n in (4, 6):
        with pytest.raises(ValueError, match=r"there are 5 rows, not 6|broadcast"):
            gathered([np.zeros((3, 2)), np.zeros((2, 2))], n)


GATHERING = """
import sys
from pathlib import Path
import numpy as np
from armorm.features.columns import Column, gathered, tensors_in

tensor, held = tensors_in(Path(sys.argv[1]))["x"], []

def some(block):
    held.append(int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) * 1024)
    return block[:, :2].copy()

Column([(tensor,)] * 200, tensor.shape[1]).over(some)
print(held[0], max(held))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="asks Linux for the memory")
def test_a_pass_over_many_blocks_takes_the_memory_of_few(tmp_path: Path):
    save_file({"x": torch.zeros(BLOCK, 512, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    command = [sys.executable, "-c", GATHERING, str(tmp_path / "x.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    first, most = map(int, done.stdout.split())
    assert most - first < 10 * BLOCK * 512 * 4


def test_blocks_are_all_places_in_order():
    assert [at.tolist() for at in blocks(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_array_in_memory_is_read_alike(tmp_path: Path):
    column, whole = written(tmp_path, torch.float32)
    held, at = Held(whole), np.array([9, 2, 9])
    assert isinstance(held, Rows)
    assert isinstance(column, Rows)
    assert (held.shape, held.dtype) == (column.shape, column.dtype)
    np.testing.assert_array_equal(held.rows(at), column.rows(at))
    assert torch.equal(held.stored(at), column.stored(at))
    assert Held(whole.astype(np.float16)).rows(at).dtype == np.float32
    assert Held(whole.astype(np.float64)).rows(at).dtype == np.float64
    held.rows(at)[:] = 0
    assert whole[9].any()


def test_a_file_that_is_cut_short_is_named(tmp_path: Path):
    column, _ = written(tmp_path, torch.float32)
    place = tmp_path / "0-3.safetensors"
    place.write_bytes(place.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"0-3\.safetensors: damaged \(it ends too early\): remove the manifest"):
        column.rows(np.arange(49))


@pytest.mark.parametrize(
    "data", [b"", b"\x05\0\0\0\0\0\0\0{}", b"\xff" * 9, b"\x02\0\0\0\0\0\0\0[]", b'\x09\0\0\0\0\0\0\0{"a": {}}']
)
def test_a_head_that_is_none_is_named(tmp_path: Path, data: bytes):
    place = tmp_path / "x.safetensors"
    place.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: damaged"):
        tensors_in(place)
