"""The gate's training at the paper's size: 1,000,000 pairs on disk, against the public scripts' loop on the same machine.

    python benchmarks/gate.py [--pairs 1000000] [--width 4096] [--steps 50] [--device cpu] [--rival-pairs 20000] [--json FILE]

The public loop, its faults mended (softmax over the objectives, debiased rewards), holds both sides' answers and prompts [p 2 d]
in float32, which is 64 GB at full size; here it holds `--rival-pairs`. Each step it takes both sides' rows, projects the answers
by the probe, debiases them and runs the gate for either side. Both ways are first run on these pairs, from the same weights, with
the same batches: the losses are the same. Then ours with products in bfloat16, whose losses are close, and ours alone on all
pairs, with memory and the time that the training waits for prompts.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Figure, Measured, measure, write_results
from planted_columns import column, held, write_column
from torch.nn.functional import binary_cross_entropy_with_logits

from armorm.fit.gate_settings import GateSettings
from armorm.fit.gate_training import Pairs, device_of, epoch, new_layers, train_layers

K, NUISANCE = 19, 4
LOOK = 10  # steps whose mean loss is compared
PRECISIONS = ("float32", "bfloat16")


def write_data(folder: str, pairs: int, few: int, width: int) -> float:
    """All pairs' prompts, and both sides' answers of a few of them. Returns the seconds it took."""
    start = time.perf_counter()
    write_column(Path(folder, "prompts"), pairs, width, seed=0)
    for seed, side in enumerate(("chosen", "rejected"), start=1):
        write_column(Path(folder, side), few, width, seed=seed)
    return time.perf_counter() - start


def probe_of(width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The probe [k d], and the debiasing [k k], which takes one objective out of the others."""
    generator = torch.Generator().manual_seed(9)
    transform = torch.eye(K)
    transform[NUISANCE] -= torch.rand(K, generator=generator)
    transform[:, NUISANCE] = 0
    return torch.randn(K, width, generator=generator) / width, transform


class Timed(Pairs):
    """Pairs, and the seconds that the training waited for their prompts."""

    waited = 0.0

    def reading(self, batches: Any) -> Iterator[torch.Tensor]:
        found = super().reading(batches)
        for _ in batches:
            start = time.perf_counter()
            one = next(found)
            self.waited += time.perf_counter() - start
            yield one


def settings_of(steps: int, look: int, *, standardize: bool, precision: Any = "float32") -> GateSettings:
    return GateSettings(steps=steps, evaluate_every=look, patience=None, standardize=standardize, precision=precision)


def differences_of(folder: str, width: int) -> np.ndarray:
    """Debiased differences of all of the few pairs: what the gate is trained on, predicted once."""
    probe, transform = probe_of(width)
    sides = (column(Path(folder, side), width) for side in ("chosen", "rejected"))
    chosen, rejected = (side.over(lambda x: x @ probe.T.numpy() @ transform.numpy()) for side in sides)
    return chosen - rejected


def ours_alike(folder: str, few: int, width: int, steps: int, device: str, precision: str = "float32") -> dict[str, Any]:
    """Ours on the few pairs, with the settings of the public loop."""
    start = time.perf_counter()
    differences = differences_of(folder, width)
    projected = time.perf_counter() - start
    prompts = column(Path(folder, "prompts"), width).take(np.arange(few))
    settings, where = settings_of(steps, LOOK, standardize=False, precision=precision), device_of(device)
    pairs = Pairs(prompts, differences, np.zeros(few, dtype=bool), standardize=False, device=where)
    train_layers(pairs, replace(settings, steps=2, evaluate_every=2), seed=1, progress=None, done=0)  # libraries are warm
    start = time.perf_counter()
    found = train_layers(pairs, settings, seed=0, progress=None, done=0)
    seconds = time.perf_counter() - start
    return {"losses": found.curve.train_loss, "steps_per_second": steps / seconds, "projection_seconds": projected}


def devices_agree(folder: str, few: int, width: int, steps: int) -> dict[str, Any]:
    """The losses of the same steps on a GPU and on the CPU."""
    found = {device: ours_alike(folder, few, width, steps, device) for device in ("cuda", "cpu")}
    losses = [one["losses"] for one in found.values()]
    return {
        "largest_loss_difference": float(np.abs(np.subtract(*losses)).max()),
        "steps_per_second": {device: one["steps_per_second"] for device, one in found.items()},
        "losses": losses,
    }


def batches(few: int, settings: GateSettings, generator: torch.Generator) -> Iterator[torch.Tensor]:
    while True:
        yield from epoch(torch.arange(few), settings, generator)


def public_way(folder: str, few: int, width: int, steps: int, device: str, tf32: bool, on_disk: bool) -> dict[str, Any]:
    """The public scripts' loop on the few pairs: in float32 in memory, or (without that) read from disk as ours are."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    where, settings = device_of(device), settings_of(steps, LOOK, standardize=False)
    places = [Path(folder, name) for name in ("chosen", "rejected", "prompts", "prompts")]
    if on_disk:
        columns = [column(place, width) for place in places]
    else:
        chosen, rejected, prompts = (held(place, few, width) for place in places[:3])
        answers_held = torch.stack([chosen, rejected], dim=1).to(where)
        prompts_held = torch.stack([prompts, prompts], dim=1).to(where)
    probe, transform = (t.to(where) for t in probe_of(width))

    def loop(steps: int, seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        layers = new_layers(width, K, settings, generator, where)
        with torch.no_grad():
            layers[-1][1][NUISANCE] = -torch.inf
        scale = torch.tensor(float(settings.scale_init), device=where, requires_grad=True)
        optimizer = torch.optim.AdamW([*(t for layer in layers for t in layer), scale], lr=settings.learning_rate, weight_decay=0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        losses, order = [], batches(few, settings, generator)
        for _ in range(steps):
            optimizer.zero_grad()
            at = next(order)
            if on_disk:
                one, two, three, four = (torch.from_numpy(c.rows(at.numpy())).to(where) for c in columns)
                answers, hidden = torch.stack([one, two], dim=1), torch.stack([three, four], dim=1)
            else:
                answers, hidden = answers_held[at.to(where)], prompts_held[at.to(where)]
            rewards = answers @ probe.T @ transform
            for i, (W, b) in enumerate(layers):
                hidden = (torch.relu(hidden) if i else hidden) @ W.T + b
            gates = torch.softmax(hidden / settings.temperature, dim=-1) * scale  # over k, a gate for either side
            scores = (rewards * gates).sum(dim=-1)
            margins = scores[:, 0] - scores[:, 1]
            loss = binary_cross_entropy_with_logits(margins, torch.ones_like(margins))
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()

    loop(2, 1)
    start = time.perf_counter()
    losses = loop(steps, 0)
    seconds = time.perf_counter() - start
    means = [float(np.mean(losses[i : i + LOOK])) for i in range(0, steps, LOOK)]
    return {"losses": means, "steps_per_second": steps / seconds}


def ours(folder: str, width: int, steps: int, device: str, precision: str) -> dict[str, Any]:
    """Ours on all pairs, of which 2 % validate every 50 steps, as in the paper's recipe."""
    prompts = column(Path(folder, "prompts"), width)
    p, where = len(prompts), device_of(device)
    differences = np.random.default_rng(0).normal(0.01, 0.05, size=(p, K))
    start = time.perf_counter()
    pairs = Timed(prompts, differences, np.arange(p) % 50 == 0, standardize=True, device=where)
    looked_through = time.perf_counter() - start
    start = time.perf_counter()
    found = train_layers(pairs, settings_of(steps, 50, standardize=True, precision=precision), seed=0, progress=None, done=0)
    seconds = time.perf_counter() - start
    return {
        "pairs": p,
        "look_seconds": looked_through,
        "seconds": seconds,
        "steps_per_second": steps / seconds,
        "waiting_share": pairs.waited / seconds,
        "validation_loss": found.curve.validation_loss,
        "gpu_mib": torch.cuda.max_memory_allocated() / 2**20 if where.type == "cuda" else None,
        "peak_mib_in_training": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def told(name: str, found: Measured) -> dict[str, Any]:
    facts = {**found.value, "peak_mib": found.peak_mib}
    print(name, json.dumps(facts), flush=True)
    return facts


def one_round(folder: str, few: int, width: int, steps: int, device: str) -> dict[str, Any]:
    """Every way once on the few pairs."""
    found = {name: told(f"ours, {name}", measure(ours_alike, folder, few, width, steps, device, name)) for name in PRECISIONS}
    found["public"] = told("public", measure(public_way, folder, few, width, steps, device, False, False))
    if device == "cpu":
        found["public_on_disk"] = told(
            "public, read from disk", measure(public_way, folder, few, width, steps, device, False, True)
        )
    else:
        found["public_tf32"] = told("public, tf32", measure(public_way, folder, few, width, steps, device, True, False))
    return found


def middle(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round with the median speed, and all speeds."""
    ordered = sorted(rounds, key=lambda one: one["steps_per_second"])
    return {**ordered[len(ordered) // 2], "speeds": [one["steps_per_second"] for one in rounds]}


def figures(facts: dict[str, Any], few: int, pairs: int, width: int, device: str) -> list[Figure]:
    found, theirs = [], facts["public"]["steps_per_second"]
    for name in PRECISIONS:
        one, whole = facts[name], facts[f"all pairs, {name}"]
        size = f"gate, {name}, {pairs:,} pairs, width {width}, {device}"
        few_pairs = f"gate, {name}, {few:,} pairs, width {width}, {device}"
        found += [
            Figure(few_pairs, one["steps_per_second"], "steps/s", "public way", theirs, "3 ×"),
            Figure(f"{few_pairs}: largest difference of a loss", one["largest_loss_difference"], "nats"),
            Figure(f"{size}: speed", whole["steps_per_second"], "steps/s"),
            Figure(f"{size}: peak memory", whole["peak_mib"], "MiB", aim="at most 3,072"),
            Figure(f"{size}: waiting for prompts", 100 * whole["waiting_share"], "% of the time", aim="below 5"),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--rival-pairs", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=50, help="of either way on the rival's pairs")
    parser.add_argument("--times", type=int, default=3, help="rounds of all ways on the rival's pairs; the median of each counts")
    parser.add_argument("--all-steps", type=int, default=50, help="of ours on all pairs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--folder", default=None, help="where the data goes, and is removed from (none: a temporary folder)")
    parser.add_argument("--json", type=Path, default=None, help="where the figures go instead of results/gate.json")
    given = parser.parse_args()
    few, width, device = min(given.rival_pairs, given.pairs), given.width, given.device
    with tempfile.TemporaryDirectory(dir=given.folder) as at:
        folder = str(Path(at) / "data")
        print(f"written in {measure(write_data, folder, given.pairs, few, width).seconds:.1f} s", flush=True)
        rounds = [one_round(folder, few, width, given.steps, device) for _ in range(given.times)]
        facts: dict[str, Any] = {name: middle([one[name] for one in rounds]) for name in rounds[0]}
        if device == "cuda":
            facts["devices"] = told("cuda, cpu", measure(devices_agree, folder, few, width, 2 * LOOK))
        for precision in PRECISIONS:
            found = measure(ours, folder, width, given.all_steps, device, precision)
            facts[f"all pairs, {precision}"] = told(f"ours, all pairs, {precision}", found)
    for name in PRECISIONS:
        facts[name]["ratio"] = facts[name]["steps_per_second"] / facts["public"]["steps_per_second"]
        off = np.subtract(facts[name]["losses"], facts["public"]["losses"])
        facts[name]["largest_loss_difference"] = float(np.abs(off).max())
        print(f"{name}: {facts[name]['ratio']:.2f}x the steps per second; losses differ by {np.abs(off).max():.1e} at most")
    facts["settings"] = vars(given) | {"json": None}
    if given.json is None:
        write_results("gate" if device == "cpu" else f"gate-{device}", facts, figures(facts, few, given.pairs, width, device))
    else:
        given.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
