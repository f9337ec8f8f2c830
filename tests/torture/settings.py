"""Hostile recipes and profiles: refused with an error of ours, or taken as they stand.

In: a recipe's and a profile's facts, changed; YAML with bytes changed, or made to explode.  Out: `Outcome`s.
Cost: a millisecond or two each; a recipe that is run, seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

from tests.torture.attack import Attack
from tests.torture.hostile import Hostile, mutated, mutated_bytes
from tests.torture.outcomes import Outcome

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
)
EXPLOSIVE = (
    LAUGHS + "name: x\n",
    "ratings: &r [*r]\n",
    "name: &n {a: *n}\n",
    "name: 2020-13-45\n",
    f"seed: {'9' * 6000}\n",
    "[" * 5000,
    "{" * 5000,
    "? !!binary aGk=\n: 1\n",
    "? [a, b]\n: 1\n",
    f"name: {'x' * 5000}\n",
    "name: !!python/object/apply:os.system ['touch pwned']\n",
    "name: \x00\n",
    "\ufeffname: x\n",
    "name: x\nname: y\n",
    "<<: {name: x}\n",
    "<<: 3\n",
    "---\na: 1\n---\nb: 2\n",
    "%YAML 9.9\n---\nname: x\n",
    "name: 1:2:3:99999999999999\n",
    "name: .inf\nseed: .nan\n",
    "!!set {a, b}\n",
    "!!omap [a: 1]\n",
    "- a\n",
    "",
    "null\n",
    'name: "\\ud800"\n',
)
SAFE = ("seed", "name", "splits", "probe", "debias", "gate", "features", "examples")


class Recipes(Hostile):
    """Recipes that are loaded, and planned where they are taken."""

    name, weight, batch = "recipes", 2.0, 250
    planned: ClassVar[int] = 8

    def begin(self, place: Path) -> None:
        import os

        os.chdir(place)

    def inputs(self, draw: random.Random) -> Iterator[tuple[str, Any]]:
        base = yaml.safe_load((self.world.inputs / "rows" / "recipe.yaml").read_text())
        text = yaml.safe_dump(base, sort_keys=False).encode()
        while True:
            way = draw.random()
            if way < 0.7:
                yield "recipes, changed", _yaml(mutated(draw, base))
            elif way < 0.95:
                yield "recipes, bytes changed", mutated_bytes(draw, text)
            else:
                yield "YAML that explodes", draw.choice(EXPLOSIVE).encode(errors="surrogatepass")

    def attempt(self, place: Path, given: Any) -> tuple[str, str]:
        from armorm.recipe import load_recipe
        from armorm.run.plan import plan

        path = place / "recipe.yaml"
        path.write_bytes(given)
        recipe = load_recipe(path)
        again = place / "again.yaml"
        again.write_text(recipe.to_yaml(), encoding="utf-8", errors="replace")
        if load_recipe(again).to_yaml() != recipe.to_yaml():
            return "silent", "read back, it is another recipe"
        if len(given) % self.planned == 0:
            plan(path)
        if (place / "pwned").exists():
            return "silent", "it ran code"
        return "survived", ""


class Profiles(Hostile):
    """Profiles on the model; weights of those that are taken are finite shares."""

    name, weight, batch = "profiles", 1.0, 400

    def begin(self, place: Path) -> None:
        import armorm

        self._model = armorm.RewardModel.from_pretrained(str(self.world.golden / "train" / "run" / "model"))

    def inputs(self, draw: random.Random) -> Iterator[tuple[str, Any]]:
        names = ["panel-quality", "panel-verbosity", "judge-quality"]
        while True:
            one, other, third = draw.sample(names, 3)
            base = {
                "name": "steered",
                "weights": {one: draw.choice((1, 0.5, 3)), other: 1},
                "blend": draw.choice((0, 0.5, 1)),
                "scale": {other: draw.choice((2, 0.1))},
                "floor": {third: 0.05},
                "cap": {one: 0.9},
                "constraints": [{"objective": other, "at_least": 0.3, "penalty": 2}],
                "nuisances": {"panel-verbosity": draw.choice((0, 0.5, 2))},
            }
            for key in draw.sample(sorted(base), draw.randrange(len(base))):
                del base[key]
            way = draw.random()
            if way < 0.75:
                yield "profiles, changed", _yaml(mutated(draw, base) if base else base)
            elif way < 0.95:
                yield "profiles, bytes changed", mutated_bytes(draw, _yaml(base))
            else:
                yield "YAML that explodes", draw.choice(EXPLOSIVE).encode(errors="surrogatepass")

    def attempt(self, place: Path, given: Any) -> tuple[str, str]:
        import torch

        from armorm.scoring.profile import Profile
        from armorm.scoring.steer import Steering

        path, model = place / "profile.yaml", self._model
        path.write_bytes(given)
        profile = Profile.from_yaml(path)
        steering = Steering.of(profile, model.objectives.names, model.config.computed, model.reward_transform_matrix)
        gates = steering.apply_gate(torch.tensor(model.reference.gates, dtype=torch.float64))
        if not torch.isfinite(gates).all() or (gates < -1e-9).any() or (gates.sum(dim=1) - 1).abs().max() > 1e-6:
            return "silent", f"weights are no shares: {gates[0].tolist()}"
        score = model.score(
            [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}], profile=profile
        ).score
        return ("survived", "") if score == score and abs(score) != float("inf") else ("silent", f"a score of {score}")


class Trained(Attack):
    """A recipe with odd settings that passes the dry run, run: it ends in a model of finite numbers, or in an error of ours."""

    name, weight = "settings", 2.0

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        base = yaml.safe_load((self.world.inputs / "rows" / "recipe.yaml").read_text())
        for _ in range(40):
            part = draw.choice(SAFE)
            hostile = mutated(draw, {part: base.get(part, draw.choice((0, 1, -1, 2**40)))})
            if not isinstance(hostile, dict):
                continue
            changed = base | hostile
            with self.world.folder() as place:
                (place / "recipe.yaml").write_bytes(_yaml(changed))
                planned = self.world.do(["train", "recipe.yaml", "--dry-run"], place, limit=30)
                how = {"recipe": {part: repr(changed.get(part))[:600]}}
                if planned.verdict == "refused":
                    continue
                if planned.verdict != "ok":
                    verdict = planned.verdict if planned.verdict == "hang" else "traceback"
                    yield Outcome(verdict, f"dry run: {part}", planned.told, {**how, "said": planned.err[-1500:]}, planned.rss)
                    return
                ended = self.world.do(["train", "recipe.yaml", "--out", "run"], place, limit=self.limit_of("train"))
                if ended.verdict != "ok":
                    verdict = ended.verdict if ended.verdict in ("refused", "hang") else "traceback"
                    told = ended.error or "error" if verdict == "refused" else ended.told
                    left = (place / "run" / "model").exists()
                    if verdict == "refused" and left:
                        yield from self._scored(place, part, how)
                    yield Outcome(verdict, f"run: {part}", told, {**how, "said": ended.err[-1500:]}, ended.rss)
                    return
                yield from self._scored(place, part, how)
                return
        self.missed += 1

    def _scored(self, place: Path, part: str, how: dict[str, Any]) -> Iterator[Outcome]:
        scored = self.world.do(self.world.reading("run/model"), place)
        kind = f"run: {part}"
        if scored.verdict == "ok":
            nan = any(word in scored.out for word in ("NaN", "Infinity", "not-finite"))
            verdict = "silent" if nan else "survived"
            yield Outcome(verdict, kind, "a model that gives no number" if nan else "", how, scored.rss)
        else:
            verdict = scored.verdict if scored.verdict in ("refused", "hang") else "traceback"
            told = scored.error or "error" if verdict == "refused" else scored.told
            yield Outcome(verdict, kind, told, {**how, "said": scored.err[-1500:]}, scored.rss)


def _yaml(facts: Any) -> bytes:
    try:
        return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True).encode(errors="surrogatepass")
    except (RecursionError, yaml.YAMLError):
        return b"name: [[[["
