"""Features on their way to disk: rows through the decoder, shard by shard, each written whole; a manifest says "complete".

In: rows (rated responses, pairs, benchmark items), a decoder, settings.  Out: `Answers`, and the folder that `answers` describes.
Cost: one extraction per distinct (backbone, settings, texts, ratings): the folder's name holds a hash of them. A run that was
killed goes on at its first missing shard and ends with the same bytes. Several processes can compute some of the shards each.
Rows pass one by one, several times: of stored rows, a shard's texts are in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from safetensors.torch import save_file

from armorm.conversation import Conversation
from armorm.data.outlines import Outline
from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse, conversations_of, texts_of
from armorm.data.stored_rows import outlines
from armorm.disk import digest_of, read_sealed, storage_errors, write_sealed, writing
from armorm.errors import CheckpointError, InUse, StorageError
from armorm.features.answers import FORMAT, LABELS, Answers, find_shard, open_answers, place_of, shard_name
from armorm.features.backbone import SIZES, Backbone, DType
from armorm.features.extract import Features, Streaming, extract
from armorm.features.nuisances import STYLE, style_of
from armorm.features.nuisances import VERSION as STYLE_VERSION
from armorm.features.spec import Part
from armorm.features.workers import Growing, Worker
from armorm.owner import clear_left_lock, owning, owning_folder
from armorm.rendering import VERSION, Renderer, Rendering

Row = RatedResponse | PreferencePair | BenchmarkItem
OnProgress = Callable[[int, int, int], None]
"""Called with (rows done, rows in all, tokens computed so far)."""
Compute = Callable[[Sequence[Conversation], Callable[[int], None]], Features]
"""Features of conversations; told how to report the tokens of a finished batch."""

_DIGEST = 16
"""Bytes of a conversation's digest."""
_PLACE = np.dtype([("high", "u8"), ("low", "u8"), ("store", "i4"), ("row", "i4"), ("place", "i4")])
_CHUNK = 65_536
"""Labels that are Python objects at a time."""
_TEXTS = pa.schema([("context", pa.string()), ("answers", pa.list_(pa.string()))])  # each as JSON text
_LABELS = pa.schema([(name, pa.int32() if name == "chosen" else pa.string()) for name in LABELS])


@runtime_checkable
class Decoder(Protocol):
    """A backbone that is loaded when something has to be computed; `fingerprint` names it and its engine without loading."""

    @property
    def fingerprint(self) -> str: ...

    def load(self) -> tuple[Backbone | Streaming, Renderer]: ...


@dataclass(frozen=True)
class ExtractionSettings:
    """What decides a feature's bytes, beside backbone and rows; `batch_tokens` only decides speed and rounding."""

    response: tuple[Part, ...]
    prompt: tuple[Part, ...]
    max_tokens: int = 2048
    rendering: Rendering = field(default_factory=Rendering)
    store_dtype: DType = "float16"
    shard_rows: int = 512
    batch_tokens: int = 4096

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the bytes, as JSON."""
        return {
            "format": FORMAT,
            "parts": {"response": [str(p) for p in self.response], "prompt": [str(p) for p in self.prompt]},
            "max_tokens": self.max_tokens,
            "rendering": {**self.rendering.to_json(), "version": VERSION},
            "store_dtype": self.store_dtype,
            "shard_rows": self.shard_rows,
        }


class Known:
    """Conversations whose features are on disk already, in earlier stores of the same backbone and settings.

    An answer that several sources hold (rated here, preferred there) is computed once; of a store that is still growing, what is
    there by then is copied. Keeps 36 bytes per conversation in memory: a digest and where its features are.
    """

    def __init__(self) -> None:
        self._stores: list[Answers] = []
        self._where = np.empty(0, _PLACE)  # sorted by digest, each digest once
        self._high = np.empty(0, np.uint64)  # of these the first halves of the digests

    def add(self, stored: Answers, rows: Iterable[Row]) -> None:
        digests, counts = bytearray(), array("i")
        for row in rows:
            before = len(digests)
            for conversation in conversations_of(row):
                digests += _digest(conversation)
            counts.append((len(digests) - before) // _DIGEST)
        answers = np.array(counts, np.int64)
        new = np.empty(len(digests) // _DIGEST, _PLACE)
        new["high"], new["low"] = np.frombuffer(digests, ">u8").reshape(-1, 2).T
        new["store"], new["row"] = len(self._stores), np.repeat(np.arange(len(answers)), answers)
        new["place"] = np.arange(len(new)) - np.repeat(np.cumsum(answers) - answers, answers)
        self._stores.append(stored)
        self._where = _first_of_each(np.concatenate([self._where, new]))
        self._high = np.ascontiguousarray(self._where["high"])

    def get(self, conversation: Conversation) -> dict[str, Any] | None:
        """One conversation's part of the columns: "response/<part>", "response/tokens", "prompt/<part>", "prompt/tokens".

        None when it is not there, or was cut to fit (a row keeps one answer's prompt, which may be cut differently).
        """
        if (where := self._find(_digest(conversation))) is None:
            return None
        store, row, place = self._stores[where[0]], slice(where[1], where[1] + 1), where[2]
        if isinstance(store, Growing) and not store.holds(where[1]):
            return None
        if store.column("response/truncated", row)[place]:
            return None
        return {name: store.column(name, row)[place if name.startswith("response/") else 0] for name in store.names}

    def _find(self, digest: bytes) -> tuple[int, int, int] | None:
        high, low = (np.uint64(int.from_bytes(half, "big")) for half in (digest[:8], digest[8:]))
        at = int(np.searchsorted(self._high, high))
        while at < len(self._high) and self._high[at] == high:
            if self._where["low"][at] == low:
                found = self._where[at]
                return int(found["store"]), int(found["row"]), int(found["place"])
            at += 1
        return None

    def complete(self, conversations: Sequence[Conversation], compute: Callable[[Sequence[Conversation]], Features]) -> Features:
        """Features of all conversations: those that are known are copied, the others computed."""
        copies = [self.get(c) for c in conversations]
        new = [i for i, copy in enumerate(copies) if copy is None]
        computed = compute([conversations[i] for i in new])

        def merge(values: np.ndarray, name: str) -> np.ndarray:
            whole = np.empty((len(copies), *values.shape[1:]), dtype=values.dtype)
            whole[new] = values
            for i, copy in enumerate(copies):
                if copy is not None:
                    whole[i] = copy[name]
            return whole

        return Features(
            {p: merge(v, f"response/{p}") for p, v in computed.response.items()},
            {p: merge(v, f"prompt/{p}") for p, v in computed.prompt.items()},
            merge(computed.response_tokens, "response/tokens"),
            merge(computed.prompt_tokens, "prompt/tokens"),
            merge(computed.truncated, "response/truncated"),
            computed.computed_tokens,
        )


def store_key(rows: Sequence[Row], fingerprint: str, settings: ExtractionSettings) -> str:
    """Hash of everything that decides the features' bytes: the decoder, the settings, texts and ratings."""
    h = hashlib.sha256(json.dumps({**settings.facts, "backbone": fingerprint}, sort_keys=True).encode())
    for row in rows:
        h.update(json.dumps([*texts_of(row), _ratings(row)], sort_keys=True).encode() + b"\n")
    return h.hexdigest()[:16]


def labels_key(rows: Sequence[Row]) -> str:
    """Hash of what rows are called and where they belong: ids, groups, sections, subsets, how many answers are chosen."""
    h = hashlib.sha256()
    for row in outlines(rows):
        h.update(json.dumps(_label(row)).encode() + b"\n")
    return h.hexdigest()[:16]


def store_answers(
    folder: Path,
    source: str,
    rows: Sequence[Row],
    decoder: Decoder,
    settings: ExtractionSettings,
    *,
    worker: Worker | None = None,
    known: Known | None = None,
    progress: OnProgress | None = None,
) -> Answers:
    """Extract the rows' features into `folder`, or find them there.

    With a `worker`, only its shards are computed, beside other workers: none waits for another, a shard that one is computing is
    left to it, and the process that finds all shards there finishes the store. What the others get is `Growing`.
    The decoder is only loaded when something has to be computed; what `known` holds is copied. Raises StorageError when the disk
    is full (what is complete stays, and the next run goes on from there), InUse for a store or shard of another process.
    """
    home = folder / f"{source}-{store_key(rows, decoder.fingerprint, settings)}"
    labels = labels_key(rows)
    if (stored := open_answers(home, labels)) is not None:
        _write_labels(home, rows)
        clear_left_lock(home)
        return stored
    if worker is not None:
        return _extract_some(home, source, rows, decoder, settings, worker, known, progress)
    with owning_folder(home):
        return _extract(home, source, rows, decoder, settings, known, progress)


def _extract_some(
    home: Path,
    source: str,
    rows: Sequence[Row],
    decoder: Decoder,
    settings: ExtractionSettings,
    worker: Worker,
    known: Known | None,
    progress: OnProgress | None,
) -> Answers:
    growing = Growing(home, {**settings.facts, "rows": len(rows)}, labels_key(rows))
    if missing := growing.missing(worker):
        _check_space(home, rows, decoder.load()[0].width, settings)
        write_shards(home, rows, settings, _computing(decoder, settings, known), missing, progress)
    if growing.present == growing.shards:
        with suppress(InUse), owning_folder(home):  # or another process finishes it just now
            return _extract(home, source, rows, decoder, settings, known, None)
    return growing


def _extract(
    home: Path,
    source: str,
    rows: Sequence[Row],
    decoder: Decoder,
    settings: ExtractionSettings,
    known: Known | None,
    progress: OnProgress | None,
) -> Answers:
    if (stored := open_answers(home, labels_key(rows))) is not None:  # another process finished it in between
        _write_labels(home, rows)
        return stored
    backbone, _ = decoder.load()
    _check_space(home, rows, backbone.width, settings)
    named = {"name": backbone.name, "fingerprint": decoder.fingerprint, "width": backbone.width}
    engine = {"engine": "vllm"} if isinstance(backbone, Streaming) else {}
    facts = {"source": source, "backbone": {**named, **engine}}
    return write_answers(home, rows, facts, settings, _computing(decoder, settings, known), progress)


def _computing(decoder: Decoder, settings: ExtractionSettings, known: Known | None) -> Compute:
    backbone, renderer = decoder.load()
    parts = {"response": settings.response, "prompt": settings.prompt, "batch_tokens": settings.batch_tokens}

    def compute(conversations: Sequence[Conversation], tick: Callable[[int], None]) -> Features:
        options: Any = {"backbone": backbone, "renderer": renderer, **parts, "on_tokens": tick}
        return (known or Known()).complete(conversations, partial(extract, **options))

    return compute


def write_answers(
    home: Path,
    rows: Sequence[Row],
    facts: Mapping[str, Any],
    settings: ExtractionSettings,
    compute: Compute,
    progress: OnProgress | None = None,
) -> Answers:
    """Fill a store's folder: shards that are not there yet, texts, labels and, last, the manifest, which holds `facts` too
    (the "source", and the "backbone" with its "width"). Raises StorageError, and InUse for a shard of another process."""
    objectives = _objectives(rows)
    shards = [rows[i : i + settings.shard_rows] for i in range(0, len(rows), settings.shard_rows)]
    done, sums = 0, {"answers": 0, "tokens": 0, "truncated": 0}
    digests = []
    with storage_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        for i, part in enumerate(shards):
            name, tick = shard_name(i, len(shards)), _ticker(progress, done, len(rows), sums)
            shard = _find_or_compute(home, name, part, compute, tick, objectives, settings.store_dtype)
            digests.append(digest_of(home / f"{name}.json"))
            done += len(part)
            sums = {key: total + shard[key] for key, total in sums.items()}
            if progress:
                progress(done, len(rows), sums["tokens"])
        texts = _write_texts(home, shards)
        labels = _write_labels(home, rows)
        for i in range(len(shards)):  # of processes that were killed
            clear_left_lock(home / f"{shard_name(i, len(shards))}.safetensors")
        whole = {**settings.facts, **facts, "objectives": objectives, "rows": len(rows), **sums}
        manifest = {"place": home.name, **whole, "shards": digests, "texts": texts}
        write_sealed(home / "manifest.json", manifest)
    return Answers(home, manifest, labels)


def write_style(stored: Answers, rows: Iterable[Row], renderer: Renderer) -> None:
    """Count the style of the rows' answers beside their features, unless the counts are there and whole; no decoder is needed.

    What is counted is the text that the decoder reads, as the chat template renders it. Raises StorageError.
    """
    with suppress(CheckpointError):
        stored.style()
        return
    texts = (renderer.render(conversation).text for row in rows for conversation in conversations_of(row))
    counts = np.fromiter((count for text in texts for count in style_of(text)), np.int32).reshape(-1, len(STYLE))
    with storage_errors(stored.folder):  # another process may do the same: at no time is there less than there was
        with writing(stored.folder / "style.safetensors") as beside:
            save_file({"counts": torch.from_numpy(counts)}, beside)
            digest = digest_of(beside)
        facts = {"place": stored.folder.name, "names": list(STYLE), "version": STYLE_VERSION}
        write_sealed(stored.folder / "style.json", {"format": FORMAT, **facts, "tensors": digest})


def write_shards(
    home: Path,
    rows: Sequence[Row],
    settings: ExtractionSettings,
    compute: Compute,
    wanted: Sequence[int],
    progress: OnProgress | None = None,
) -> None:
    """Compute the shards with these numbers, and nothing else; one that another process computes is left to it.

    Raises StorageError.
    """
    objectives = _objectives(rows)
    size, count = settings.shard_rows, -(-len(rows) // settings.shard_rows)
    parts = [(shard_name(i, count), rows[i * size : (i + 1) * size]) for i in wanted]
    done, total, sums = 0, sum(len(part) for _, part in parts), {"tokens": 0}
    with storage_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        for name, part in parts:
            with suppress(InUse):
                tick = _ticker(progress, done, total, sums)
                shard = _find_or_compute(home, name, part, compute, tick, objectives, settings.store_dtype)
                sums["tokens"] += shard["tokens"]
            done += len(part)
            if progress:
                progress(done, total, sums["tokens"])


# -- one shard ----------------------------------------------------------------------------------------------------------------


def _find_or_compute(
    home: Path,
    name: str,
    rows: Sequence[Row],
    compute: Compute,
    tick: Callable[[int], None],
    objectives: Sequence[str],
    dtype: DType,
) -> dict[str, Any]:
    if (found := find_shard(home, name, len(rows))) is not None:
        return found
    with owning(home / f"{name}.safetensors"):
        if (found := find_shard(home, name, len(rows))) is not None:  # another process wrote it in between
            return found
        start = time.perf_counter()
        held = [*rows]
        features = compute([c for row in held for c in conversations_of(row)], tick)
        shard = _write_shard(home, name, held, features, objectives, dtype)
        _note_time(home, name, time.perf_counter() - start, shard)
        return shard


def _write_shard(
    home: Path, name: str, rows: Sequence[Row], features: Features, objectives: Sequence[str], dtype: DType
) -> dict[str, Any]:
    sizes = [len(texts_of(row)[1]) for row in rows]
    tensors = _tensors(features, sizes, dtype)
    if objectives:
        labels = [[_ratings(row).get(o, math.nan) for o in objectives] for row in rows]
        tensors["ratings"] = torch.tensor(labels, dtype=torch.float64)
    with writing(home / f"{name}.safetensors") as beside:
        save_file(tensors, beside)
        digest = digest_of(beside)
    counts = {"rows": len(rows), "answers": sum(sizes), "tokens": features.computed_tokens}
    counts["truncated"] = int(features.truncated.sum())
    facts = {"format": FORMAT, "place": place_of(home, name), **counts, "tensors": digest}
    write_sealed(home / f"{name}.json", facts)
    return facts


def _tensors(features: Features, sizes: Sequence[int], dtype: DType) -> dict[str, torch.Tensor]:
    tensors = {f"response/{part}": _narrowed(values, part, dtype) for part, values in features.response.items()}
    tensors["response/tokens"] = torch.from_numpy(features.response_tokens.copy())
    tensors["response/truncated"] = torch.from_numpy(features.truncated.copy())
    # A row has one prompt; where truncation cut its answers' differently, the one that kept more of it speaks for all.
    kept, ends = features.prompt_tokens, np.cumsum(sizes)
    best = np.array([end - n + kept[end - n : end].argmax() for n, end in zip(sizes, ends, strict=True)], dtype=np.int64)
    for part, values in features.prompt.items():
        tensors[f"prompt/{part}"] = _narrowed(values[best], part, dtype)
    tensors["prompt/tokens"] = torch.from_numpy(features.prompt_tokens[best].copy())
    tensors["answers"] = torch.tensor(sizes, dtype=torch.int64)
    return tensors


def _narrowed(values: Float[np.ndarray, "n d"], part: str, dtype: DType) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(getattr(torch, dtype))
    if not torch.isfinite(tensor).all():
        raise StorageError(
            f"features at {part} overflow {dtype}: set `features.store_dtype: bfloat16` (or float32) in the recipe"
        )
    return tensor


# -- rows ---------------------------------------------------------------------------------------------------------------------


def _ratings(row: Row) -> dict[str, float]:
    return dict(row.ratings) if isinstance(row, RatedResponse) else {}


def _objectives(rows: Sequence[Row]) -> list[str]:
    return sorted({name for row in outlines(rows) for name in row.ratings})


def _label(row: Outline) -> tuple[str, str, str, str, int]:
    return row.id, row.group, row.section, row.subset, row.chosen


def _write_texts(home: Path, shards: Sequence[Sequence[Row]]) -> str:
    # One row group per shard, so that a row's texts are found without reading the others'.
    with writing(home / "texts.parquet") as beside:
        with pq.ParquetWriter(beside, _TEXTS, compression="zstd") as writer:
            for rows in shards:
                contexts, answers = zip(*map(texts_of, rows), strict=True)
                written = {"context": map(json.dumps, contexts), "answers": [list(map(json.dumps, a)) for a in answers]}
                writer.write_table(pa.table({name: list(values) for name, values in written.items()}, schema=_TEXTS))
        return digest_of(beside)


def _write_labels(home: Path, rows: Sequence[Row]) -> str:
    # Written unless they are there and whole: the rows are at hand.
    key = labels_key(rows)
    place, sealed = home / f"labels-{key}.parquet", home / f"labels-{key}.json"
    with suppress(CheckpointError, OSError):
        if read_sealed(sealed, FORMAT, remedy="", holds={"table": str})["table"] == digest_of(place):
            return key
    labels, batches = map(_label, outlines(rows)), list[pa.RecordBatch]()
    while chunk := list(islice(labels, _CHUNK)):
        batches.append(pa.record_batch([_clean(values) for values in zip(*chunk, strict=True)], schema=_LABELS))
    with writing(place) as beside:
        pq.write_table(pa.Table.from_batches(batches, _LABELS), beside)
        digest = digest_of(beside)
    write_sealed(sealed, {"format": FORMAT, "table": digest})
    return key


def _clean(values: Sequence[Any]) -> list[Any]:
    # Parquet holds UTF-8, to which half a surrogate pair doesn't belong.
    return [v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for v in values]


def _digest(conversation: Conversation) -> bytes:
    return hashlib.blake2b(json.dumps(list(conversation), sort_keys=True).encode(), digest_size=_DIGEST).digest()


def _first_of_each(where: np.ndarray) -> np.ndarray:
    # Sorted by digest; of equal ones the one that came first.
    where = where[np.lexsort((where["low"], where["high"]))]
    new = (np.diff(where["high"]) != 0) | (np.diff(where["low"]) != 0)
    return where[np.concatenate([[True], new])[: len(where)]]


# -- small change --------------------------------------------------------------------------------------------------------------


def _ticker(progress: OnProgress | None, done: int, total: int, sums: Mapping[str, int]) -> Callable[[int], None]:
    seen = sums["tokens"]

    def tick(tokens: int) -> None:
        nonlocal seen
        seen += tokens
        if progress:
            progress(done, total, seen)

    return tick


def _note_time(home: Path, name: str, seconds: float, facts: Mapping[str, Any]) -> None:
    line = {"shard": name, "seconds": round(seconds, 3), "tokens": facts["tokens"], "truncated": facts["truncated"]}
    with (home / "timings.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _check_space(home: Path, rows: Sequence[Row], width: int, settings: ExtractionSettings) -> None:
    numbers = sum(row.answers * len(settings.response) + len(settings.prompt) for row in outlines(rows)) * width
    whole = numbers * SIZES[settings.store_dtype]
    need = whole - sum(f.stat().st_size for f in home.glob("shard-*.safetensors") if f.is_file())
    there = next(p for p in (home, *home.parents) if p.exists())
    if need > (free := shutil.disk_usage(there).free):
        raise StorageError(
            f"{home}: the features need {need / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free: make room or choose another folder"
        )
