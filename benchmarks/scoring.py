"""`armorm score` on many rows: peak memory at two sizes, rows a second, and a killed run that goes on.

    python benchmarks/scoring.py [--rows 20000 200000] [--kills 3]

Synthetic short rows and a random decoder of two small blocks, so that what is measured is the streaming and not the decoder.
Every size is scored in a process of its own, whose peak memory the system reports. The largest size is scored again by processes
that are killed (SIGKILL) now and then; the result must be the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from measuring import RUN
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from armorm.features.backbone import load_backbone
from armorm.features.spec import FeatureSpec
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.method import Fitted
from armorm.fit.probe import Probe
from armorm.model.layouts.own import assemble
from armorm.objectives import Objective, Objectives
from armorm.rendering import Renderer
from armorm.report.provenance import provenance

WORDS = "the of and to a in is it you that he was for on are with as his they be at one have this from or had by hot but"
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--kills", type=int, default=3)
    given = parser.parse_args()
    facts = provenance()
    print(f"{facts['machine']}; commit {facts['commit']}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(folder)
        peaks = []
        for rows in given.rows:
            file = write_rows(folder / f"rows-{rows}.jsonl", rows)
            start = time.perf_counter()
            peaks.append(scored(model, file, folder / f"scored-{rows}.jsonl"))
            spent = time.perf_counter() - start
            print(f"{rows:9,} rows  {spent:7.1f} s  {rows / spent:8,.0f} rows/s  peak {peaks[-1] / 1024:8.1f} MiB")
        print(f"peak at {given.rows[-1]:,} rows / peak at {given.rows[0]:,}: {peaks[-1] / peaks[0]:.3f}")
        whole = folder / f"scored-{given.rows[-1]}.jsonl"
        kills = killed_and_resumed(model, file, folder / "killed.jsonl", spent, given.kills)
        same = digest(whole) == digest(folder / "killed.jsonl")
        print(f"killed {kills} times and resumed: {count(folder / 'killed.jsonl'):,} rows, same bytes as in one go: {same}")
        sys.exit(0 if same else 1)


def scored(model: Path, file: Path, out: Path) -> int:
    """Peak memory in KiB of a process that scores the file."""
    words = [*RUN, "score", str(model), str(file), "--out", str(out), "--quiet"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"scoring failed ({process.returncode})")
    return usage.ru_maxrss


def killed_and_resumed(model: Path, file: Path, out: Path, seconds: float, kills: int) -> int:
    words = [*RUN, "score", str(model), str(file), "--out", str(out), "--quiet"]
    draw, killed = random.Random(0), 0
    for _ in range(kills):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        while not out.with_name(f"{out.name}.progress.json").exists() and process.poll() is None:
            time.sleep(0.05)
        try:
            process.wait(timeout=5 + seconds / (kills + 1) * draw.uniform(0.3, 0.8))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return killed


def write_rows(path: Path, rows: int) -> Path:
    """Short rows, four answers in a row to each prompt."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            if i % 4 == 0:
                prompt = " ".join(draw.choices(WORDS.split(), k=draw.randint(3, 12)))
            response = " ".join(draw.choices(WORDS.split(), k=draw.randint(3, 30)))
            file.write(json.dumps({"id": i, "prompt": f"{prompt} {i // 4}", "response": response}) + "\n")
    return path


def write_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerFast:
    """A small tokenizer with a chat template, in a decoder's folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, letters = ["<|pad|>", "<|im_start|>", "<|im_end|>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return fast


def write_model(folder: Path) -> Path:
    """A random reward model on a random decoder: 2 blocks, width 32."""
    fast = write_tokenizer(folder / "backbone")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=len(fast), num_key_value_heads=2, max_position_embeddings=256, **sizes)
    transformers.LlamaModel(config).save_pretrained(folder / "backbone")
    rng = np.random.default_rng(0)
    objectives = Objectives([Objective(name=n, min=0, max=4) for n in ("helpful", "safe", "verbosity")])
    layers = tuple(rng.normal(size=shape).astype(np.float32) for shape in ((8, 32), (3, 8)))
    gate = Gate(objectives, layers, tuple(np.zeros(n, dtype=np.float32) for n in (8, 3)), 1.0, 1.0)
    probe = Probe(objectives, rng.normal(size=(3, 32)), np.zeros(3), np.ones(3))
    backbone = load_backbone(str(folder / "backbone"), dtype="float32", device="cpu")
    last = FeatureSpec.parse("final:last")
    renderer = Renderer(backbone.tokenizer, max_tokens=256)
    assemble(backbone, renderer, Fitted(probe, str(last), Debias.identity(objectives), gate), prompt=last).save_pretrained(
        folder / "model"
    )
    return folder / "model"


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


if __name__ == "__main__":
    main()
