"""Hostile model folders and decoders: their JSON files, safetensors headers and chat templates.

In: a model's or a decoder's folder with one file changed so that it still parses, mostly.  Out: `Outcome`s.
Cost: a load and six scores each, a tenth of a second.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.torture.hostile import VALUES, Hostile, mutated, mutated_bytes
from tests.torture.numbers import SUMS

CONVERSATIONS = [
    [{"role": "user", "content": f"What is {n} + {n}?"}, {"role": "assistant", "content": "fine thank you " * n}]
    for n in range(1, 4)
]


class Folders(Hostile):
    """A folder with one file changed; the folder is loaded and three conversations go through it."""

    batch, patience = 40, 25.0
    folders = ("model", "model, unlisted", "decoder")
    """A model with the list of its files' digests, one without (its owner means the change), a decoder."""

    def begin(self, place: Path) -> None:
        import logging

        logging.disable(logging.CRITICAL)
        self._known = {kind: _through(kind, self._home(kind)) for kind in self.folders}

    def write(self, place: Path, given: Any) -> Path:
        """The changed folder."""
        kind, name, data = given
        folder = place / kind.replace(", ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._home(kind), folder)
        (folder / name).write_bytes(data)
        if kind != "model":
            (folder / SUMS).unlink(missing_ok=True)
        return folder

    def attempt(self, place: Path, given: Any) -> tuple[str, str]:
        kind, folder = given[0], self.write(place, given)
        import torch

        torch.manual_seed(0)
        found = _through(kind, folder)
        if not all(number == number and abs(number) != float("inf") for number in found):
            return "silent", "numbers that are none"
        return ("harmless", "") if found == self._known[kind] else self.other(kind)

    def other(self, kind: str) -> tuple[str, str]:
        """What other finite numbers are: a valid file says something else."""
        return "survived", "other numbers"

    def _home(self, kind: str) -> Path:
        return self.world.golden / "train" / "run" / "model" if kind != "decoder" else self.world.inputs / "tiny"


class Configs(Folders):
    """config.json, the tokenizer's files and what stands beside a model, changed."""

    name, weight = "configs", 2.0

    def inputs(self, draw: random.Random) -> Iterator[tuple[str, Any]]:
        while True:
            kind = draw.choice(self.folders)
            home = self._home(kind)
            paths = sorted(p for p in home.rglob("*.json") if p.name not in ("stage.json",))
            path = draw.choice([*paths, *(p for p in paths if p.name == "config.json")])
            facts = json.loads(path.read_bytes())
            changed = draw.choice(VALUES) if draw.random() < 0.03 else mutated(draw, facts)
            data = json.dumps(changed, indent=1).encode() if draw.random() < 0.9 else mutated_bytes(draw, path.read_bytes())
            if "sha256" in facts and isinstance(changed, dict):
                data = _sealed(changed)
            name = path.relative_to(home).as_posix()
            yield f"{kind}: {name}", (kind, name, data)


class Headers(Folders):
    """The header of model.safetensors: its length, names, types, shapes and offsets."""

    name, weight = "headers", 1.0

    def other(self, kind: str) -> tuple[str, str]:
        return ("silent", "other numbers of a file that was changed") if kind == "model" else super().other(kind)

    def inputs(self, draw: random.Random) -> Iterator[tuple[str, Any]]:
        while True:
            kind = draw.choice(self.folders)
            data = (self._home(kind) / "model.safetensors").read_bytes()
            (long,) = struct.unpack("<Q", data[:8])
            facts, rest = json.loads(data[8 : 8 + long]), data[8 + long :]
            way = draw.random()
            if way < 0.15:
                claimed = draw.choice((0, 1, 2**31, 2**32, 2**63, 2**64 - 1, long + 8, long - 8, len(data)))
                yield f"{kind}: length", (kind, "model.safetensors", struct.pack("<Q", claimed) + data[8:])
                continue
            if way < 0.3:
                what, changed = "two tensors swapped", _swapped(draw, facts)
            else:
                what, changed = "header", _header(draw, facts)
            text = json.dumps(changed).encode()
            yield f"{kind}: {what}", (kind, "model.safetensors", struct.pack("<Q", len(text)) + text + rest)


class Templates(Folders):
    """Chat templates: changed, endless, greedy, and those that try to reach what they may not."""

    name, weight = "templates", 1.0
    batch, patience = 30, 20.0

    def inputs(self, draw: random.Random) -> Iterator[tuple[str, Any]]:
        while True:
            kind = draw.choice(self.folders)
            text = (self._home(kind) / "chat_template.jinja").read_bytes()
            data = mutated_bytes(draw, text) if draw.random() < 0.7 else draw.choice(NASTY).encode()
            yield f"{kind}: chat template", (kind, "chat_template.jinja", data)


NASTY = (
    "",
    "{{ 1/0 }}",
    "{{ messages }}",
    "{{ messages[99].content }}",
    "{% for m in messages %}{{ m.content }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch pwned') }}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% for m in messages %}{{ m['role'] }}{% endfor %}",
    "{{ raise_exception('no') }}",
    "{% include '/etc/passwd' %}",
    "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    "{{ messages | tojson }}" * 3,
    "{{ strftime_now('%Y') }}",
    "{% set x = namespace(a=[]) %}{% for m in messages %}{{ x.a.append(m) }}{% endfor %}{{ x.a }}",
    "{{ '%s' * 100 % 3 }}",
    "{{ 'x' * 10**9 }}",
    "{{ range(10**12) | list }}",
    "{% for i in range(10**9) %}{% endfor %}",
    "{{ '%0999999999d' % 3 }}",
    "{{ 'x'.ljust(10**10) }}",
)


def _through(kind: str, folder: Path) -> list[float]:
    """Numbers of three conversations, by a model or by a decoder that is to become one."""
    if kind != "decoder":
        import armorm

        model = armorm.RewardModel.from_pretrained(str(folder))
        return [number for score in model.score(CONVERSATIONS) for number in (score.score, *score.gate.values())]
    from armorm.features.backbone import load_backbone
    from armorm.features.extract import extract
    from armorm.features.spec import FeatureSpec
    from armorm.rendering import Renderer

    backbone = load_backbone(str(folder), dtype="float32", device="cpu")
    response, prompt = FeatureSpec.parse("2:mean").parts, FeatureSpec.parse("2:last").parts
    renderer = Renderer(backbone.tokenizer, max_tokens=256)
    found = extract(CONVERSATIONS, backbone, renderer, response=response, prompt=prompt)
    return [float(number) for number in found.response["2:mean"].sum(axis=1)]


def _sealed(facts: dict[str, Any]) -> bytes:
    # As armorm.disk writes it, so that what is inside is looked at.
    body = (json.dumps({k: v for k, v in facts.items() if k != "sha256"}, indent=1) + "\n").removeprefix("{\n").encode()
    return f'{{\n "sha256": "{hashlib.sha256(body).hexdigest()}",\n'.encode() + body


def _swapped(draw: random.Random, facts: dict[str, Any]) -> dict[str, Any]:
    by_shape: dict[str, list[str]] = {}
    for name, about in facts.items():
        if name != "__metadata__":
            by_shape.setdefault(str((about["dtype"], about["shape"])), []).append(name)
    one, other = draw.sample(draw.choice([names for _, names in sorted(by_shape.items()) if len(names) > 1]), 2)
    return {**facts, one: facts[other], other: facts[one]}


def _header(draw: random.Random, facts: dict[str, Any]) -> dict[str, Any]:
    name = draw.choice(sorted(facts))
    return {**facts, name: mutated(draw, facts[name]) if draw.random() < 0.8 else draw.choice(VALUES)}
