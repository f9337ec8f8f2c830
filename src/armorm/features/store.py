"""Features on disk: shards of safetensors with ids, groups and labels beside them; a manifest, written last, says "complete".

In: rows (rated responses or pairs), a backbone, settings.  Out: `Stored`, read shard by shard.
Cost: one extraction per distinct (backbone, settings, rows): the folder's name holds a hash of all three. A run that was killed
goes on at its first missing shard and ends with the same bytes.

    <folder>/<source>-<key>/shard-00000-of-00012.safetensors   features, token counts, ratings on their raw scale
                            shard-00000-of-00012.json          ids and groups
                            manifest.json                      what went in, row and token counts
                            timings.jsonl                      seconds per shard (not part of the result)
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from armorm.conversation import Conversation, Renderer
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.errors import CheckpointError, StorageError
from armorm.features.backbone import Backbone, DType
from armorm.features.extract import Features, extract, join_parts
from armorm.features.spec import FeatureSpec, Part
from armorm.objectives import Objectives

FORMAT = 1
Row = RatedResponse | PreferencePair
OnProgress = Callable[[int, int, int], None]
"""Called with (rows done, rows in all, tokens computed so far)."""


@dataclass(frozen=True)
class ExtractionSettings:
    """What decides a feature's bytes, beside backbone and rows; `batch_tokens` only decides speed and rounding."""

    response: tuple[Part, ...]
    prompt: tuple[Part, ...]
    max_tokens: int = 2048
    store_dtype: DType = "float16"
    shard_rows: int = 512
    batch_tokens: int = 4096


@dataclass(frozen=True)
class Block:
    """One shard, read back. `sides` are ("response",) for rated rows, ("chosen", "rejected") for pairs."""

    tensors: Mapping[str, np.ndarray]
    ids: tuple[str, ...]
    objectives: tuple[str, ...]

    def features(self, side: str, spec: FeatureSpec) -> Float[np.ndarray, "n w"]:
        """A side's response features (or side "prompt": the prompts') joined as the spec says, in the type they are stored in."""
        return join_parts({str(p): self.tensors[f"{side}/{p}"] for p in spec.parts}, spec)

    def tokens(self, side: str) -> Int[np.ndarray, " n"]:
        return self.tensors[f"{side}/tokens"]

    def ratings(self, objectives: Objectives) -> Float[np.ndarray, "n k"]:
        """Ratings on their raw scales in the order of `objectives`, NaN where there is none."""
        ratings = np.full((len(self.ids), len(objectives)), np.nan)
        for i, name in enumerate(self.objectives):
            if name in objectives.names:
                ratings[:, objectives.column(name)] = self.tensors["ratings"][:, i]
        return ratings


@dataclass(frozen=True)
class Stored:
    """A complete store. Reads one shard at a time; `column` methods gather all of them."""

    folder: Path
    manifest: Mapping[str, Any]

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    @property
    def sides(self) -> tuple[str, ...]:
        return tuple(self.manifest["sides"])

    def block(self, shard: int) -> Block:
        """One shard. Raises CheckpointError when it is missing or damaged."""
        name = _shard_name(shard, self.manifest["shards"])
        return _read_shard(self.folder, name, tuple(self.manifest["objectives"]))

    def blocks(self) -> Iterator[Block]:
        """Shard by shard, in order."""
        return (self.block(i) for i in range(self.manifest["shards"]))

    def features(self, side: str, spec: FeatureSpec) -> Float[np.ndarray, "n w"]:
        return _gathered([b.features(side, spec) for b in self.blocks()])

    def tokens(self, side: str) -> Int[np.ndarray, " n"]:
        return _gathered([b.tokens(side) for b in self.blocks()])

    @property
    def seconds(self) -> float:
        """Seconds spent on all shards, over every run that worked on them."""
        lines = (self.folder / "timings.jsonl").read_text().splitlines() if (self.folder / "timings.jsonl").exists() else []
        return sum(json.loads(line)["seconds"] for line in lines)


class Known:
    """Conversations whose features are on disk already, in earlier stores of the same backbone and settings.

    An answer that several sources hold (rated here, preferred there) is computed once. Keeps a hash per conversation in
    memory, and the few shards that were read last.
    """

    def __init__(self) -> None:
        self._stores: list[Stored] = []
        self._where: dict[bytes, tuple[int, int, int, str]] = {}
        self._block = lru_cache(maxsize=4)(lambda store, shard: self._stores[store].block(shard))

    def add(self, stored: Stored, rows: Sequence[Row]) -> None:
        self._stores.append(stored)
        size = int(stored.manifest["shard_rows"])
        for i, row in enumerate(rows):
            for side, conversation in zip(stored.sides, _conversations(row), strict=True):
                self._where.setdefault(_digest(conversation), (len(self._stores) - 1, i // size, i % size, side))

    def get(self, conversation: Conversation) -> dict[str, Any] | None:
        """One conversation's rows of the tensors: "response/<part>", "response/tokens", "prompt/<part>", "prompt/tokens".

        None when it is not there, or was cut to fit (a pair keeps one side's prompt, which may be cut differently).
        """
        if (place := self._where.get(_digest(conversation))) is None:
            return None
        store, shard, row, side = place
        tensors = self._block(store, shard).tensors
        if tensors[f"{side}/truncated"][row]:
            return None
        own = {k.replace(side, "response", 1): v[row] for k, v in tensors.items() if k.startswith(f"{side}/")}
        return own | {k: v[row] for k, v in tensors.items() if k.startswith("prompt/")}


def _digest(conversation: Conversation) -> bytes:
    turns = [(m["role"], m["content"]) for m in conversation]
    return hashlib.blake2b(json.dumps(turns).encode(), digest_size=16).digest()


def store_key(rows: Sequence[Row], backbone_fingerprint: str, settings: ExtractionSettings) -> str:
    """Hash of everything that decides the store's bytes."""
    h = hashlib.sha256()
    facts = {
        "format": FORMAT,
        "backbone": backbone_fingerprint,
        "response": [str(p) for p in settings.response],
        "prompt": [str(p) for p in settings.prompt],
        "max_tokens": settings.max_tokens,
        "store_dtype": settings.store_dtype,
        "shard_rows": settings.shard_rows,
    }
    h.update(json.dumps(facts, sort_keys=True).encode())
    for row in rows:
        h.update(json.dumps(_content(row), sort_keys=True).encode() + b"\n")
    return h.hexdigest()[:16]


def open_store(folder: Path) -> Stored | None:
    """The complete store in a folder, or None when there is none (or only a part of one)."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / 'manifest.json'} is damaged ({error}): remove the folder and run again") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{folder}: features of format {found}, this version reads {FORMAT}: extract again")
    return Stored(folder, manifest)


def store_features(
    folder: Path,
    source: str,
    rows: Sequence[Row],
    load: Callable[[], tuple[Backbone, Renderer]],
    backbone_fingerprint: str,
    settings: ExtractionSettings,
    *,
    known: Known | None = None,
    progress: OnProgress | None = None,
) -> Stored:
    """Extract the rows' features into `folder`, or find them there.

    `load` is only called when something has to be computed; what `known` holds is copied. Raises StorageError when the disk
    is full (what is complete stays, and the next run goes on from there).
    """
    home = folder / f"{source}-{store_key(rows, backbone_fingerprint, settings)}"
    if (found := open_store(home)) is not None:
        return found
    backbone, renderer = load()
    objectives = sorted({name for row in rows if isinstance(row, RatedResponse) for name in row.ratings})
    shards = [rows[i : i + settings.shard_rows] for i in range(0, len(rows), settings.shard_rows)]
    _check_space(home, rows, backbone.width, settings)
    done = tokens = truncated = 0
    with _disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(home)
        for i, part in enumerate(shards):
            name = _shard_name(i, len(shards))
            facts = _finished(home, name, len(part))
            if facts is None:
                before = tokens
                tick = _ticker(progress, done, len(rows), before)
                facts = _write_shard(home, name, part, backbone, renderer, settings, objectives, known or Known(), tick)
            done += len(part)
            tokens += facts["tokens"]
            truncated += facts["truncated"]
            if progress:
                progress(done, len(rows), tokens)
        manifest = {
            "format": FORMAT,
            "source": source,
            "backbone": {"name": backbone.name, "fingerprint": backbone_fingerprint, "width": backbone.width},
            "sides": list(_sides(rows[0])) if rows else [],
            "objectives": list(objectives),
            "parts": {"response": [str(p) for p in settings.response], "prompt": [str(p) for p in settings.prompt]},
            "rows": len(rows),
            "shards": len(shards),
            "shard_rows": settings.shard_rows,
            "tokens": tokens,
            "truncated": truncated,
        }
        _write_json(home / "manifest.json", manifest)
    return Stored(home, manifest)


def _sides(row: Row) -> tuple[str, ...]:
    return ("response",) if isinstance(row, RatedResponse) else ("chosen", "rejected")


def _conversations(row: Row) -> tuple[Conversation, ...]:
    if isinstance(row, RatedResponse):
        return (row.messages,)
    return row.conversation(row.chosen), row.conversation(row.rejected)


def _content(row: Row) -> list[Any]:
    ratings = dict(row.ratings) if isinstance(row, RatedResponse) else {}
    return [row.id, [[[m["role"], m["content"]] for m in c] for c in _conversations(row)], ratings]


def _write_shard(
    home: Path,
    name: str,
    rows: Sequence[Row],
    backbone: Backbone,
    renderer: Renderer,
    settings: ExtractionSettings,
    objectives: Sequence[str],
    known: Known,
    tick: Callable[[int], None] | None,
) -> dict[str, int]:
    start = time.perf_counter()
    sides = _sides(rows[0])
    flat = [c for row in rows for c in _conversations(row)]
    features = _computed_or_known(flat, known, backbone, renderer, settings, tick)
    tensors = _tensors(features, sides, settings.store_dtype)
    if objectives:
        labels = [[r.ratings.get(o, math.nan) for o in objectives] for r in rows if isinstance(r, RatedResponse)]
        tensors["ratings"] = torch.tensor(labels, dtype=torch.float64)
    facts = {"tokens": features.computed_tokens, "truncated": int(features.truncated.sum())}
    _write_json(home / f"{name}.json", {"ids": [r.id for r in rows], "groups": [r.group for r in rows], **facts})
    beside = home / f"{name}.{os.getpid()}.part"
    try:
        save_file(tensors, beside)
        beside.replace(home / f"{name}.safetensors")
    finally:
        beside.unlink(missing_ok=True)
    with (home / "timings.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps({"shard": name, "seconds": round(time.perf_counter() - start, 3), **facts}) + "\n")
    return facts


def _computed_or_known(
    conversations: Sequence[Conversation],
    known: Known,
    backbone: Backbone,
    renderer: Renderer,
    settings: ExtractionSettings,
    tick: Callable[[int], None] | None,
) -> Features:
    found = [known.get(c) for c in conversations]
    new = [i for i, f in enumerate(found) if f is None]
    computed = extract(
        [conversations[i] for i in new],
        backbone,
        renderer,
        response=settings.response,
        prompt=settings.prompt,
        batch_tokens=settings.batch_tokens,
        on_tokens=tick,
    )

    def merged(values: np.ndarray, key: str) -> np.ndarray:
        whole = np.empty((len(found), *values.shape[1:]), dtype=values.dtype)
        whole[new] = values
        for i, f in enumerate(found):
            if f is not None:
                whole[i] = f[key]
        return whole

    return Features(
        {p: merged(v, f"response/{p}") for p, v in computed.response.items()},
        {p: merged(v, f"prompt/{p}") for p, v in computed.prompt.items()},
        merged(computed.response_tokens, "response/tokens"),
        merged(computed.prompt_tokens, "prompt/tokens"),
        merged(computed.truncated, "response/truncated"),
        computed.computed_tokens,
    )


def _tensors(features: Features, sides: tuple[str, ...], dtype: DType) -> dict[str, torch.Tensor]:
    step = len(sides)
    tensors: dict[str, torch.Tensor] = {}
    for i, side in enumerate(sides):
        for part, values in features.response.items():
            tensors[f"{side}/{part}"] = _stored(values[i::step], part, dtype)
        tensors[f"{side}/tokens"] = torch.from_numpy(features.response_tokens[i::step].copy())
        tensors[f"{side}/truncated"] = torch.from_numpy(features.truncated[i::step].copy())
    # A pair has one prompt; where truncation cut its sides differently, the side that kept more of it speaks for both.
    kept = features.prompt_tokens.reshape(-1, step)
    best = kept.argmax(axis=1) + np.arange(len(kept)) * step
    for part, values in features.prompt.items():
        tensors[f"prompt/{part}"] = _stored(values[best], part, dtype)
    tensors["prompt/tokens"] = torch.from_numpy(features.prompt_tokens[best].copy())
    return tensors


def _stored(values: Float[np.ndarray, "n d"], part: str, dtype: DType) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(getattr(torch, dtype))
    if not torch.isfinite(tensor).all():
        raise StorageError(
            f"features at {part} overflow {dtype}: set `features.store_dtype: bfloat16` (or float32) in the recipe"
        )
    return tensor


def _finished(home: Path, name: str, rows: int) -> dict[str, int] | None:
    try:
        facts = json.loads((home / f"{name}.json").read_text(encoding="utf-8"))
        with safe_open(home / f"{name}.safetensors", framework="pt") as f:
            whole = f.get_slice("prompt/tokens").get_shape()[0] == rows == len(facts["ids"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return {"tokens": facts["tokens"], "truncated": facts["truncated"]} if whole else None


def _read_shard(folder: Path, name: str, objectives: tuple[str, ...]) -> Block:
    try:
        facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with safe_open(folder / f"{name}.safetensors", framework="pt") as f:
            tensors = {k: _numpy(f.get_tensor(k)) for k in f.keys()}  # noqa: SIM118 - no mapping
        return Block(tensors, tuple(facts["ids"]), objectives)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / name}: missing or damaged ({error}): remove it and manifest.json, and run again"
        ) from None


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _gathered(blocks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(blocks) if blocks else np.empty((0,))


def _shard_name(i: int, count: int) -> str:
    return f"shard-{i:05d}-of-{count:05d}"


def _remove_leftovers(home: Path) -> None:
    # A killed run leaves the file that it was writing, with its process id in the name.
    for file in home.glob("*.part") if os.name == "posix" else ():
        try:
            os.kill(int(file.suffixes[-2].removeprefix(".")), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except PermissionError:  # another user's run is writing it
            continue


def _write_json(path: Path, facts: Mapping[str, Any]) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _ticker(progress: OnProgress | None, done: int, total: int, before: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    seen = before

    def tick(tokens: int) -> None:
        nonlocal seen
        seen += tokens
        progress(done, total, seen)

    return tick


def _check_space(home: Path, rows: Sequence[Row], width: int, settings: ExtractionSettings) -> None:
    if not rows:
        return
    per_row = width * (len(_sides(rows[0])) * len(settings.response) + len(settings.prompt))
    whole = len(rows) * per_row * torch.empty(0, dtype=getattr(torch, settings.store_dtype)).element_size()
    need = whole - sum(f.stat().st_size for f in home.glob("shard-*.safetensors"))
    there = next(p for p in (home, *home.parents) if p.exists())
    if need > (free := shutil.disk_usage(there).free):
        raise StorageError(f"{home}: the features need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: choose another --out")


class _disk_errors:  # noqa: N801 - reads as a statement
    def __init__(self, home: Path) -> None:
        self.home = home

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> Literal[False]:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or (isinstance(error, SafetensorError) and "No space left" in str(error)):
            raise StorageError(
                f"{self.home}: the disk is full. The complete shards are kept: free some space and run the same command again"
            ) from error
        if isinstance(error, OSError):
            raise StorageError(f"{self.home}: can't be written ({error}): choose another --out") from error
        return False
