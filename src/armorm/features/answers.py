"""Stored answers: features of contexts and their answers, read by column and slice.

In: a folder that `storing` filled.  Out: `Answers`: columns as arrays; ids, groups, sections and texts where they are asked for.
Cost: a SHA-256 of each file before its first byte is used, and what is asked for: a slice is read, nothing is mapped, so that a
pass over all shards takes the memory of one. No text stays in memory.

A row is a context and n answers: one that is rated, two of a pair, all of a benchmark's item (the chosen ones first).

    <folder>/<source>-<key>/shard-00000-of-00012.safetensors  response/<part> [a d], response/tokens and response/truncated [a],
                                                              prompt/<part> [n d], prompt/tokens [n], answers [n], ratings [n k']
                            shard-00000-of-00012.json         its place, counts, the tensors' digest (sealed)
                            texts.parquet                     contexts and answers
                            manifest.json                     its place, what went in, all digests (sealed, written last)
                            labels-<key>.parquet              ids, groups, sections, subsets, how many answers are chosen
                            labels-<key>.json                 its digest (sealed)
                            style.safetensors                 counts [a s] of what stands in the answers' texts, and
                            style.json                        its digest (sealed); written when a recipe asks for them
                            timings.jsonl                     seconds per shard (not part of the result)

Labels have a key of their own, since a row's group depends on the other sources of a run: other groups cost no decoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int, Shaped
from pydantic import BaseModel, ConfigDict, Field, model_validator

from armorm.bounds import shown
from armorm.conversation import Answer, Message
from armorm.disk import check_digest, digest_of, load_part, read_sealed, reading_facts
from armorm.errors import CheckpointError
from armorm.features.columns import REMEDY, Column, Stored, tensors_in
from armorm.features.nuisances import STYLE
from armorm.features.nuisances import VERSION as STYLE_VERSION
from armorm.features.spec import FeatureSpec
from armorm.objectives import Objectives

FORMAT = 3
SHARD = {**dict.fromkeys(("rows", "answers", "tokens", "truncated"), int), "tensors": str}
"""What the facts of a shard hold."""
MANIFEST = {
    **dict.fromkeys(("rows", "answers", "tokens", "truncated", "shard_rows"), int),
    **{"parts": dict, "backbone": dict, "objectives": list, "shards": list, "store_dtype": str, "texts": str},
}
"""What the manifest of a store holds."""


class _Decoder(BaseModel):
    name: str
    fingerprint: str
    width: Annotated[int, Field(ge=1, le=2**31)]


class _Manifest(BaseModel):
    # What the facts may be, beside their kinds.
    model_config = ConfigDict(strict=True)

    parts: dict[Literal["response", "prompt"], list[str]]
    backbone: _Decoder
    objectives: list[str]
    rows: Annotated[int, Field(ge=0)]
    shard_rows: Annotated[int, Field(ge=1)]
    shards: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]

    @model_validator(mode="after")
    def _fits(self) -> _Manifest:
        if set(self.parts) != {"response", "prompt"}:
            raise ValueError("parts are those of response and prompt")
        if len(self.shards) != -(-self.rows // self.shard_rows):
            raise ValueError(f"{len(self.shards)} shards of {self.shard_rows} rows can't hold {self.rows}")
        return self


EVERY = slice(None)
LABELS = ("id", "group", "section", "subset", "chosen")
Side = Literal["response", "prompt"]
"""Whose features: the answers', or the prompts'."""


@dataclass(frozen=True, slots=True)
class Texts:
    """One row's context and answers."""

    context: tuple[Message, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One row as a benchmark's item, without its texts: `sizes` are the numbers of its chosen and rejected answers."""

    id: str
    group: str
    section: str
    subset: str
    sizes: tuple[int, int]


@dataclass(frozen=True)
class Answers:
    """A complete store. `labels` is the key of the ids, groups, sections and subsets that it is read with.

    Every method raises CheckpointError for a file that is missing or not as it was written.
    """

    folder: Path
    manifest: Mapping[str, Any]
    labels: str

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    @property
    def key(self) -> str:
        """Names everything that a number made of this store depends on."""
        return f"{self.folder.name}/{self.labels}"

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that hold what the decoder made of a conversation."""
        parts = [f"{side}/{part}" for side, found in self.manifest["parts"].items() for part in found]
        return (*parts, "response/tokens", "response/truncated", "prompt/tokens")

    # -- numbers -------------------------------------------------------------------------------------------------------------

    def column(self, name: str, rows: slice = EVERY) -> Shaped[np.ndarray, "..."]:
        """One column of the rows in a slice (of step 1): [rows …], or [answers …] for "response/…", their answers in order."""
        spans = [self._shard(shard).column(name, a, b) for shard, a, b in self._spans(rows)]
        if not spans:
            width = self.manifest["backbone"]["width"]
            return np.empty((0, width), np.float32) if ":" in name else np.empty(0, np.int64)
        return spans[0] if len(spans) == 1 else np.concatenate(spans)

    def features(self, spec: FeatureSpec, rows: slice = EVERY) -> Float[np.ndarray, "a w"]:
        """The answers' features, joined as the spec says, in the type they are stored in."""
        return self._joined("response", spec, rows)

    def prompts(self, spec: FeatureSpec, rows: slice = EVERY) -> Float[np.ndarray, "n v"]:
        """The prompts' features, likewise."""
        return self._joined("prompt", spec, rows)

    def pieces(self, side: Side, spec: FeatureSpec) -> list[tuple[Stored, ...]]:
        """Where the features of one side stand: shard by shard, a tensor for each part of the spec."""
        shards = map(self._shard, range(len(self.manifest["shards"])))
        return [tuple(shard.tensors[f"{side}/{part}"] for part in spec.parts) for shard in shards]

    def tokens(self, rows: slice = EVERY) -> Int[np.ndarray, " a"]:
        """The answers' lengths in tokens."""
        return self.column("response/tokens", rows)

    def style(self) -> Int[np.ndarray, "a s"]:
        """The answers' counts of `STYLE`. Raises CheckpointError too where this version has not counted them: the rows' texts
        are needed for it, and no decoder."""
        place, remedy = self.folder / "style.json", "train again (or extract): the answers are counted anew, without the decoder"
        tensors, facts = load_part(self.folder, "style", FORMAT, remedy=remedy)
        counts = tensors.get("counts")
        if facts.get("version") != STYLE_VERSION or facts.get("place") != self.folder.name or counts is None:
            raise CheckpointError(f"{place}: these are another version's or another store's counts: {remedy}")
        if counts.shape != (needed := (int(self.manifest["answers"]), len(STYLE))) or counts.dtype.kind != "i":
            raise CheckpointError(f"{place}: {counts.shape} counts where {needed} are needed: {remedy}")
        return counts

    def sizes(self) -> Int[np.ndarray, " n"]:
        """How many answers each row has."""
        return self.column("answers").astype(np.int64)

    def ratings(self, objectives: Objectives, rows: slice = EVERY) -> Float[np.ndarray, "n k"]:
        """Ratings on their raw scales in the order of `objectives`, NaN where there is none."""
        stored = self.manifest["objectives"]
        given = self.column("ratings", rows) if stored else np.empty((len(range(*rows.indices(len(self)))), 0))
        ratings = np.full((len(given), len(objectives)), np.nan)
        for i, name in enumerate(stored):
            if name in objectives.names:
                ratings[:, objectives.column(name)] = given[:, i]
        return ratings

    def blocks(self) -> Iterator[slice]:
        """The rows shard by shard, for passes that hold one shard in memory at a time."""
        size = int(self.manifest["shard_rows"])
        return (slice(start, min(start + size, len(self))) for start in range(0, len(self), size))

    # -- labels and texts ----------------------------------------------------------------------------------------------------

    @property
    def ids(self) -> list[str]:
        return self._label("id")

    @property
    def groups(self) -> list[str]:
        """The prompt group of each row."""
        return self._label("group")

    @property
    def sections(self) -> list[str]:
        """Each row's place in a benchmark, "" where it has none."""
        return self._label("section")

    @property
    def subsets(self) -> list[str]:
        """Each row's subset within its section; of a pair that was made the source of its answer."""
        return self._label("subset")

    def items(self) -> list[StoredItem]:
        """The rows as items of a benchmark."""
        columns = [self._label(name) for name in LABELS]
        rows = zip(*columns, self.sizes().tolist(), strict=True)
        return [StoredItem(i, g, section, subset, (c, n - c)) for i, g, section, subset, c, n in rows]

    def texts(self, row: int) -> Texts:
        """The texts of one row."""
        shard, place = divmod(row, int(self.manifest["shard_rows"]))
        found = self._texts.read_row_group(shard).slice(place, 1).to_pylist()[0]
        answers = map(json.loads, found["answers"])
        return Texts(tuple(json.loads(found["context"])), tuple(a if isinstance(a, str) else tuple(a) for a in answers))

    def contexts(self) -> Iterator[tuple[Message, ...]]:
        """The contexts of all rows, in order, few of them in memory at a time."""
        for batch in self._texts.iter_batches(batch_size=512, columns=["context"]):
            yield from (tuple(json.loads(found)) for found in batch.column(0).to_pylist())

    @property
    def seconds(self) -> float:
        """Seconds spent on all shards, over every run that worked on them."""
        path = self.folder / "timings.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()
        return sum(map(_seconds_of, lines))

    # -- files, each verified once ---------------------------------------------------------------------------------------------

    def _joined(self, side: str, spec: FeatureSpec, rows: slice) -> Float[np.ndarray, "_ w"]:
        parts = [self.column(f"{side}/{part}", rows) for part in spec.parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _spans(self, rows: slice) -> Iterator[tuple[int, int, int]]:
        # (shard, first row in it, behind its last row), shard by shard
        start, stop, _ = rows.indices(len(self))
        size = int(self.manifest["shard_rows"])
        if start >= stop and len(self):  # nothing of the first shard: an empty array of the right type and width
            yield 0, 0, 0
        for shard in range(start // size, -(-stop // size) if start < stop else 0):
            yield shard, max(start - shard * size, 0), min(stop - shard * size, size)

    @cached_property
    def _shards(self) -> dict[int, _Shard]:
        return {}

    def _shard(self, shard: int) -> _Shard:
        if shard not in self._shards:
            place = self.check_shard(shard)
            with reading_facts(place, remedy=REMEDY):
                self._shards[shard] = _Shard(place)
                self._check_columns(self._shards[shard].tensors)
        return self._shards[shard]

    def _check_columns(self, tensors: Mapping[str, Stored]) -> None:
        # Raises KeyError or ValueError where they are not those of the manifest.
        widths = {name: self.manifest["backbone"]["width"] for name in self.names if ":" in name}
        if self.manifest["objectives"]:
            widths["ratings"] = len(self.manifest["objectives"])
        for name, width in widths.items():
            if tensors[name].shape[1:] != (width,):
                raise ValueError(f"{name} is not {width} wide")

    def check_shard(self, shard: int) -> Path:
        """The tensors' file of a shard that is as it was written."""
        digests = self.manifest["shards"]
        name = shard_name(shard, len(digests))
        check_digest(self.folder / f"{name}.json", digests[shard], remedy=REMEDY)
        facts = read_sealed(self.folder / f"{name}.json", FORMAT, remedy=REMEDY, holds=SHARD)
        size = self.manifest["shard_rows"]
        if facts["rows"] != (wanted := min(size, len(self) - shard * size)):
            raise CheckpointError(f"{self.folder / name}.json: holds {facts['rows']} rows, not {wanted}: {REMEDY}")
        place = self.folder / f"{name}.safetensors"
        check_digest(place, facts["tensors"], remedy=REMEDY)
        return place

    @cached_property
    def _texts(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.check_texts())

    def check_texts(self) -> Path:
        """The texts' file, as it was written."""
        place = self.folder / "texts.parquet"
        check_digest(place, self.manifest["texts"], remedy=REMEDY)
        return place

    @cached_property
    def _labels(self) -> Path:
        return self.check_labels()

    def check_labels(self) -> Path:
        """The labels' file, as it was written."""
        facts = read_sealed(self.folder / f"labels-{self.labels}.json", FORMAT, remedy=REMEDY, holds={"table": str})
        place = self.folder / f"labels-{self.labels}.parquet"
        check_digest(place, facts["table"], remedy=REMEDY)
        return place

    def _label(self, name: str) -> list[Any]:
        return pq.read_table(self._labels, columns=[name])[name].to_pylist()


def _seconds_of(line: str) -> float:
    try:
        return float(json.loads(line)["seconds"])
    except (ValueError, KeyError, TypeError, RecursionError):  # cut short, or damaged: no result depends on it
        return 0.0


class _Shard:
    # One safetensors file. `bounds` [n+1]: where each row's answers begin, and the end.

    def __init__(self, place: Path) -> None:
        self.tensors = tensors_in(place)
        answers = self.tensors["answers"]
        self.bounds = np.concatenate([[0], np.cumsum(answers.read(0, answers.shape[0]).numpy())])

    def column(self, name: str, first: int, last: int) -> np.ndarray:
        """A column of the rows [first, last)."""
        if name.startswith("response/"):
            first, last = int(self.bounds[first]), int(self.bounds[last])
        tensor = self.tensors[name].read(first, last)
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def column_of(stores: Sequence[Answers], side: Side, spec: FeatureSpec) -> Column:
    """The features of several stores one behind the other, on disk; every shard is checked."""
    width = stores[0].manifest["backbone"]["width"] * len(spec.parts) if stores else 0
    return Column([piece for store in stores for piece in store.pieces(side, spec)], width)


def open_answers(folder: Path, labels: str | None = None) -> Answers | None:
    """The complete store in a folder, or None when there is none (or only a part of one).

    `labels` is the key of the labels to read it with (none: of the only ones that there are). Raises CheckpointError when the
    manifest is damaged, of another format, or another store's.
    """
    if not (folder / "manifest.json").is_file():
        return None
    remedy = "remove it and extract again (what is whole is kept)"
    manifest = read_sealed(folder / "manifest.json", FORMAT, remedy=remedy, holds=MANIFEST)
    with reading_facts(folder / "manifest.json", remedy=remedy):
        _Manifest.model_validate(manifest)
    if (place := manifest.get("place", folder.name)) != folder.name:
        raise CheckpointError(f"{folder / 'manifest.json'}: is that of another store ({shown(place)}): {remedy}")
    if labels is None:
        found = sorted(folder.glob("labels-*.json"))
        if len(found) != 1:
            raise CheckpointError(f"{folder}: there are {len(found)} sets of labels, say which: {[f.stem for f in found]}")
        labels = found[0].stem.removeprefix("labels-")
    return Answers(folder, manifest, labels)


def store_faults(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) for every file of a complete store that is missing or not as it was written."""
    checks: list[Callable[[], Any]] = []
    try:
        stored = open_answers(folder, labels="")
        if stored is None:
            yield "manifest.json", "is missing: the extraction is not finished"
            return
        checks += [partial(stored.check_shard, i) for i in range(len(stored.manifest["shards"]))]
        checks += [stored.check_texts]
    except CheckpointError as error:
        yield "manifest.json", str(error)
        return
    checks += [stored.style] if any((folder / f"style.{ending}").is_file() for ending in ("json", "safetensors")) else []
    found = (file for file in folder.glob("labels-*") if file.suffix in (".json", ".parquet"))
    checks += [replace(stored, labels=key).check_labels for key in sorted({f.stem.removeprefix("labels-") for f in found})]
    for check in checks:
        try:
            check()
        except CheckpointError as error:
            place, _, fault = str(error).partition(": ")
            yield Path(place).name, fault


def find_shard(folder: Path, name: str, rows: int) -> dict[str, Any] | None:
    """The facts of a shard that is whole, stands where it was written and has so many rows, or None."""
    try:
        facts = read_sealed(folder / f"{name}.json", FORMAT, remedy=REMEDY, holds=SHARD)
        place = place_of(folder, name)
        own = facts["rows"] == rows and facts.get("place", place) == place  # earlier versions did not say
        whole = own and digest_of(folder / f"{name}.safetensors") == facts["tensors"]
    except (CheckpointError, OSError):
        return None
    return facts if whole else None


def shard_name(i: int, count: int) -> str:
    return f"shard-{i:05d}-of-{count:05d}"


def place_of(folder: Path, name: str) -> str:
    """What a shard's facts say of where it stands: those of another place hold other rows."""
    return f"{folder.name}/{name}"
