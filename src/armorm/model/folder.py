"""A model folder or hub id before and while it is loaded: its facts, whether its weights are there, what went wrong.

In: a name.  Out: config.json's facts, the folder beside the weights; CheckpointError saying what is missing and what to do.
Cost: a listing, and JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import cached_file

from armorm.errors import CheckpointError, DataError
from armorm.model.config import RewardModelConfig
from armorm.model.layouts.released import is_released
from armorm.scoring.reference import FILES as REFERENCE_FILES
from armorm.scoring.uncertainty import FILES as UNCERTAINTY_FILES
from armorm.user_files import is_file, is_folder, shown, user_path

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_facts(name: str, hub: Mapping[str, Any]) -> dict[str, Any]:
    """config.json as it is, of a reward model whose weights are all there. `hub` are options for the hub.

    Raises CheckpointError for a folder without config or weights, and for another kind of model.
    """
    folder = Path(name)
    check_name(name)
    with loading_errors(name):
        facts, _ = PreTrainedConfig.get_config_dict(name, **hub)
    if facts.get("model_type") != RewardModelConfig.model_type and not is_released(facts):
        raise CheckpointError(
            f"{name}: its config.json says {_kind_in(facts)}, which is no reward model of named objectives; give a run's model "
            "folder (runs/NAME/model), or one in the released ArmoRM's layout; `armorm bench` judges models with one label too"
        )
    if folder.is_dir():
        check_weights(folder)
    return facts


def local(name: str) -> str:
    """A model's name, with the home folder in place of a `~`. Raises CheckpointError as `check_name` does."""
    found = str(user_path(name)) if name.startswith("~") else name
    check_name(found)
    return found


def check_name(name: str) -> None:
    """Raises CheckpointError for a path where nothing is, and for a folder with an adapter alone, an encoder, or no model."""
    folder = Path(name)
    if not is_folder(folder) and not is_file(folder):
        if _looks_like_path(name):
            raise CheckpointError(
                f"{shown(name)}: no such folder; give a run's model folder (runs/NAME/model) or a hub id (owner/name)"
            )
        return
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise CheckpointError(
                f"{name}: holds an adapter (adapter_config.json) and not the decoder that it was trained on: merge the two with "
                "peft's `merge_and_unload()`, write the result with `save_pretrained`, and give that folder"
            )
        raise CheckpointError(f"{name}: no config.json in it; give a run's model folder (runs/NAME/model)")
    with loading_errors(name):
        facts, _ = PreTrainedConfig.get_config_dict(name)
    if _is_encoder(facts):
        raise CheckpointError(
            f"{name}: its config.json says {_kind_in(facts)}, an encoder, which can be neither a backbone nor a rival: give a "
            "model with a causal decoder (Llama, Qwen, Gemma, …), or train one on the same data"
        )


def _looks_like_path(name: str) -> bool:
    # A hub id is `name` or `owner/name`; one whose owner is a folder here is a path with a slip of the pen.
    first, *others = re.split(r"[/\\]", name)
    plainly = name.startswith((".", "~")) or name.endswith("/") or "\\" in name
    return plainly or len(others) > 1 or (bool(others) and Path(first or "/").is_dir())


def _is_encoder(facts: Mapping[str, Any]) -> bool:
    masked = facts.get("model_type") in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not facts.get("is_decoder")
    return bool(masked or facts.get("is_encoder_decoder"))


def _kind_in(facts: Mapping[str, Any]) -> str:
    # What a config.json says of itself, with its labels where it has more than one.
    kind = ", ".join(map(str, facts.get("architectures") or ())) or facts.get("model_type") or "nothing known"
    labels = facts.get("num_labels") or len(facts.get("id2label") or ())
    return f"{kind} with {labels} labels" if labels > 1 else str(kind)


@contextmanager
def loading_errors(name: str) -> Iterator[None]:
    """Turns what transformers raises in the block into a CheckpointError about the model."""
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(f"{name}: a safetensors file is damaged or cut short ({error}): copy it again") from error
    except (OSError, ValueError, KeyError, DataError) as error:
        raise CheckpointError(f"{name} can't be loaded as a reward model: {str(error).splitlines()[0]}") from error


def folder_beside(name: str, hub: Mapping[str, Any]) -> Path | None:
    """The folder that holds what is kept beside the weights: the model's own, or the hub's snapshot where it has such files."""
    if Path(name).is_dir():
        return Path(name)
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    kept = [cached_file(name, file, **quiet, **hub) for file in (*UNCERTAINTY_FILES, *REFERENCE_FILES)]
    return next((Path(file).parent for file in kept if file), None)


def read_tokenizer(name: str, hub: Mapping[str, Any]) -> Any:
    """The tokenizer beside the weights, or None: the model then takes token ids alone, and `score` says what is missing."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **hub)
    except (OSError, ValueError, KeyError):
        return None
    # Where there are no files, some classes make one up of special tokens alone.
    return tokenizer if len(tokenizer) > len(tokenizer.added_tokens_decoder) else None


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
