"""Features of made-up pairs in safetensors files as the store writes them, larger than memory where need be.

In: a folder, numbers of rows, a width.  Out: files of 512 rows in bfloat16; `column` opens them as the product does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from armorm.features.columns import Column, tensors_in

SHARD, POOL = 512, 16_384
NAME = "final:last"


def write_column(folder: Path, rows: int, width: int, seed: int, lead: float = 0.0) -> None:
    """Rows of normal numbers: a pool of them, its columns moved on by one each time that it is through.

    Every second row, from the first on, is so far ahead in the direction (1, …, 1): the answer of a pair that wins.
    """
    folder.mkdir(parents=True)
    pool = torch.randn(POOL, width, generator=torch.Generator().manual_seed(seed))
    pool[::2] += lead / width**0.5
    pool = pool.to(torch.bfloat16)
    for shard, first in enumerate(range(0, rows, SHARD)):
        start = first % POOL
        own = pool[start : start + min(SHARD, rows - first)].roll(first // POOL, dims=1)
        save_file({NAME: own.contiguous()}, folder / f"shard-{shard:05d}.safetensors")


def column(folder: Path, width: int) -> Column:
    """All rows of a folder."""
    return Column([(tensors_in(file)[NAME],) for file in sorted(folder.glob("*.safetensors"))], width)


def held(folder: Path, rows: int, width: int) -> torch.Tensor:
    """The first rows in float32, as the public scripts hold all of them."""
    return torch.from_numpy(column(folder, width).rows(np.arange(rows)))
