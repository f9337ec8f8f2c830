"""How far a model in the released layout is from the numbers that came with it.

    python benchmarks/parity.py FOLDER      # config.json, model.safetensors, expected.json

`expected.json` lists token sequences with what the released code returned for each. Prints the largest absolute difference of
each output in float32, one sequence at a time and in a batch padded on either side: of the folder as it is read, and with the
rotary frequencies rounded to bfloat16, as in a decoder that was cast there and back in memory.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from armorm.model.reward_model import RewardModel
from armorm.report.provenance import provenance

OUTPUTS = ("rewards", "gating_output", "score", "hidden_state", "prompt_embedding")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    facts = provenance()
    print(f"{facts['machine']}; commit {facts['commit']}")
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    model = RewardModel.from_pretrained(folder)
    report("as read", model, expected)
    frequencies = model.model.rotary_emb.inv_freq
    frequencies.copy_(frequencies.to(torch.bfloat16).float())
    report("rotary frequencies rounded to bfloat16", model, expected)


@torch.no_grad()
def report(what: str, model: RewardModel, expected: list[dict]) -> None:
    """Print the largest differences of one model."""
    rows = [torch.tensor(e["input_ids"]) for e in expected]
    wanted = {name: torch.stack([torch.as_tensor(e[name]) for e in expected]) for name in OUTPUTS}
    alone = [model(row[None]) for row in rows]
    found = {"one by one": {name: torch.cat([getattr(out, name) for out in alone]) for name in OUTPUTS}}
    for side in ("left", "right"):
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=model.config.pad_token_id, padding_side=side)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in rows], batch_first=True, padding_side=side)
        out = model(ids, attention_mask=mask)
        found[f"batch, {side} padding"] = {name: getattr(out, name) for name in OUTPUTS}
    for how, outputs in found.items():
        gaps = ", ".join(f"{name} {(outputs[name] - wanted[name]).abs().max():.1e}" for name in OUTPUTS)
        print(f"{what}; {how}: {gaps}")


if __name__ == "__main__":
    main()
