"""Whether a model folder's weights are there and readable, before anything is loaded.

In: a folder.  Out: nothing, or CheckpointError saying what is missing and what to do.  Cost: a listing, and an index file's JSON.
"""

from __future__ import annotations

import json
from pathlib import Path

from armorm.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def check_weights(folder: Path) -> None:
    """Raises CheckpointError for a folder without safetensors, or whose index names files that are not there."""
    if (folder / SINGLE).is_file():
        return
    if not (folder / INDEX).is_file():
        pickled = sorted(f.name for f in folder.iterdir() if f.suffix in {".bin", ".pt", ".pth", ".ckpt"})
        what = f"only pickled weights ({', '.join(pickled[:2])}), which are never read" if pickled else "no weights"
        raise CheckpointError(
            f"{folder} holds {what}: it needs {SINGLE}, or {INDEX} and its shards. Download the safetensors, or load the "
            "model where you trust it and write them with its `save_pretrained`"
        )
    try:
        shards = {str(shard) for shard in json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / INDEX} is no index of safetensors ({error}): copy it again") from error
    if missing := sorted(shard for shard in shards if not (folder / shard).is_file()):
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing[:3])} ({len(missing)} of {len(shards)} shards): copy or download them again"
        )
