"""Everything behind the features at the paper's size: the stages of `armorm train` itself, seconds and peak memory of each.

    python benchmarks/whole_fit.py [--scale 1.0] [--width 4096] [--steps 200] [--folder DIR]

585,000 ratings of the paper's eight kinds of rows and 785,000 pairs with generated features, 4,096 wide, bfloat16: about 30 GB at
full scale, written into a folder of its own in DIR (or where temporary files go) and removed at the end. Nothing runs where the
disk is too full. The two trainings of the gate (debiased and raw rewards) make `--steps` of the paper's 10,000 steps each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from generated import scales, write_pairs, write_store
from measuring import Figure, measure, write_results
from scoring import write_tokenizer

from armorm.features.answers import open_answers
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run.extraction import Stores
from armorm.run.train import Training

RATINGS = {  # rows, and which of the 19 objectives they are rated on
    "helpsteer": (35_331, range(5)),
    "ultrafeedback": (255_868, range(5, 10)),
    "beavertails": (27_186, [10]),
    "prometheus": (141_900, [11]),
    "capybara": (44_433, [12]),
    "openorca": (25_718, [13]),
    "code-ultrafeedback": (50_000, range(14, 19)),
    "argilla-math": (4_564, [6]),
}
PAIRS = {
    "helpsteer": 37_131,
    "ultrafeedback": 340_025,
    "shp": 93_301,
    "hh-rlhf": 157_300,
    "pku-safer": 26_874,
    "capybara": 14_811,
    "argilla-math": 2_418,
    "code-ultrafeedback": 50_156,
    "prometheus2": 62_984,
}
OBJECTIVES, STEPS = 19, 10_000
SHARD_ROWS = 4096


class MeasuredTraining(Training):
    """Training on stores that are there; says of every stage how long it took and its process's peak memory meanwhile."""

    measured: dict[str, dict[str, float]]

    def _extract(self) -> dict[str, Any]:
        self.measured = {}
        kinds = ("ratings", "pairs", "suites")
        self.stores = Stores(*({at.name: open_answers(at) for at in sorted((self.features / k).glob("*"))} for k in kinds))
        none: dict[str, Any] = {"sources": [], "objectives": [], "splits": {}}
        return {"data": none | {"labels": {"sources": [], "objectives": [], "counts": []}}, "faults": []}

    def _stage(self, name: str, inputs: Any, compute: Callable[..., Any], read: Callable[..., Any]) -> Any:
        forget_peak()
        stage = super()._stage(name, inputs, compute, read)
        self.measured[name] = {"seconds": stage.seconds, "peak_mib": peak_mib()}
        print(f"{name:12} {stage.seconds:8.1f} s  {peak_mib():8.0f} MiB", file=sys.stderr, flush=True)
        return stage


def forget_peak() -> None:
    """Have the kernel count this process's peak memory anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def write_everything(folder: str, scale: float, width: int) -> None:
    """Stores of all sources."""
    objectives, place = scales(OBJECTIVES), Path(folder) / "features"
    for source, (rows, columns) in RATINGS.items():
        names = [objectives.names[i] for i in columns]
        write_store(place / "ratings", source, scaled(rows, scale), width, objectives, [names], shard_rows=SHARD_ROWS)
    for source, rows in PAIRS.items():
        write_pairs(place / "pairs", source, scaled(rows, scale), width, objectives, shard_rows=SHARD_ROWS)


def scaled(rows: int, scale: float) -> int:
    return max(round(rows * scale), 64)


def write_recipe(folder: Path, width: int, steps: int) -> Path:
    """The paper's recipe on a random decoder of one small block as wide as the features."""
    tokenizer = write_tokenizer(folder / "backbone")
    sizes = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, max_position_embeddings=256, **sizes)
    transformers.LlamaModel(config).to(torch.bfloat16).save_pretrained(folder / "backbone")
    objectives = scales(OBJECTIVES)
    for source in {**RATINGS, **PAIRS}:
        (folder / f"{source}.jsonl").touch()  # the recipe names files; their rows are in the stores
    (folder / "objectives.json").write_text(json.dumps(objectives.to_json()), encoding="utf-8")
    recipe = {
        "name": "whole-fit",
        "backbone": {"model": str(folder / "backbone"), "dtype": "bfloat16", "device": "cpu", "max_tokens": 256},
        "objectives": str(folder / "objectives.json"),
        "ratings": [{"path": str(folder / f"{name}.jsonl")} for name in RATINGS],
        "pairs": [{"path": str(folder / f"{name}.jsonl")} for name in PAIRS],
        "splits": {"validation": 0.02, "test": 0.02},
        "features": {"response": ["final:last"], "prompt": "final:last", "store_dtype": "bfloat16", "shard_rows": SHARD_ROWS},
        "debias": {"nuisances": [objectives.names[0]], "method": "spearman", "reference": ["ultrafeedback"]},
        "gate": {"hidden": 1024, "hidden_layers": 3, "steps": steps, "batch_size": 1024, "patience": None},
    }
    place = folder / "recipe.yaml"
    place.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return place


def fit(folder: str) -> dict[str, dict[str, float]]:
    """All stages behind the features."""
    home = Path(folder)
    training = MeasuredTraining(load_recipe(home / "recipe.yaml"), home / "run", home / "features", Reporter())
    training.run()
    return training.measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    vectors = sum(2 * scaled(rows, given.scale) for rows, _ in RATINGS.values())
    vectors += sum(3 * scaled(rows, given.scale) for rows in PAIRS.values())
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        need, free = vectors * given.width * 2 * 1.15 + 2e9, shutil.disk_usage(name).free
        if free < need:
            raise SystemExit(f"{name}: {need / 1e9:.0f} GB are needed, {free / 1e9:.0f} GB are free: name another --folder")
        written = measure(write_everything, name, given.scale, given.width)
        print(f"{vectors * given.width * 2 / 1e9:.1f} GB of features written in {written.seconds:.0f} s", flush=True)
        write_recipe(Path(name), given.width, given.steps)
        found = measure(fit, name)
    report(found.value, max(stage["peak_mib"] for stage in found.value.values()), given)  # the process's own is counted anew


def report(stages: Mapping[str, Mapping[str, float]], peak: float, given: argparse.Namespace) -> None:
    """The table, and results/whole_fit.json."""
    for name, stage in stages.items():
        print(f"{name:12} {stage['seconds']:9.1f} s  {stage['peak_mib']:8.0f} MiB")
    whole, gate = sum(s["seconds"] for s in stages.values()), stages["gate"]["seconds"]
    hour, room = ("an hour", "at most 6,144") if given.scale == 1 and given.width == 4096 else ("", "")
    size = f"{given.scale:g} of the paper's size, width {given.width}"
    steps = f"the gate's {given.steps} of {STEPS:,} steps, twice"
    print(f"all          {whole:9.1f} s  {peak:8.0f} MiB  ({size}; {steps})")
    figures = [
        *(Figure(f"whole fit, {name} ({size})", stage["seconds"], "s") for name, stage in stages.items()),
        Figure(f"whole fit without the gate ({size})", whole - gate, "s", aim=hour),
        Figure(f"whole fit, peak memory ({size})", peak, "MiB", aim=room),
    ]
    facts = {"scale": given.scale, "width": given.width, "steps": given.steps, "stages": stages, "peak_mib": peak}
    write_results("whole_fit", facts, figures)


if __name__ == "__main__":
    main()
