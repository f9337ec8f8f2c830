"""What each part of recipes/open-data.yaml is worth: one thing changed, or the paper's form, on the same features.

    python benchmarks/unseen_variants.py [--only NAME …] [--out runs/variants] [--features FOLDER] [--json FILE]

Needs ARMORM_DATA. Each variant is a whole `armorm train`. Printed is what may choose: accuracy on held-out pairs of the training
sources and on each source that was left out, every section alike. `--all` adds the recipe's suites, which choose nothing.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from armorm.recipe import HELD_OUT, UNSEEN, Recipe, load_recipe
from armorm.report.provenance import provenance
from armorm.run.train import train

RECIPE = Path(__file__).parents[1] / "recipes" / "open-data.yaml"
PAPER: dict[str, Any] = {
    "steps": 800,
    "batch_size": 512,
    "patience": 10,
    "scale_init": 10.0,
    "weigh": "pairs",
    "start": "random",
    "kl": 0.0,
    "kl_elsewhere": 0.0,
    "kl_equal": 0.0,
    "seeds": 5,
    "combine": "best",
}
"""The paper's gate, as small as this much data asks for."""
MADE = ["relevance", "coherence", "completeness", "conciseness", "compliance"]
AS_PAPER: dict[str, Any] = {
    "gate": PAPER,
    "preferred": False,
    "contrast": False,
    "made": [],
    "debias": {"method": "spearman", "nuisances": ["computed-verbosity"], "padded": None},
}
CHANGES: dict[str, dict[str, Any]] = {
    "recipe": {},
    "weigh pairs": {"gate": {"weigh": "pairs"}},
    "weigh sources": {"gate": {"weigh": "sources"}},
    "paper": AS_PAPER,
    "paper, weigh prompts": {**AS_PAPER, "gate": {**PAPER, "weigh": "prompts"}},
    "paper, weigh sources": {**AS_PAPER, "gate": {**PAPER, "weigh": "sources"}},
    "no preferred": {"preferred": False},
    "no kl_elsewhere": {"gate": {"kl_elsewhere": 0.0}},
    "no kl_equal": {"gate": {"kl_equal": 0.0}},
    "no contrast pairs": {"contrast": False},
    "no made objective": {"made": []},
    "five made objectives": {"made": MADE},
    "spearman": {"debias": {"method": "spearman"}},
    "intervention": {"debias": {"method": "intervention"}},
}
METHODS = ("armorm", "armorm-not-debiased", "armorm-no-gate", "uniform", "uniform-raw", "bradley-terry", "length")


def variant(name: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with these changes, under that name."""
    facts = load_recipe(RECIPE).model_dump(mode="json")
    of = next(source["of"] for source in facts["pairs"] if source["made"])
    if not changes.get("contrast", True):
        facts["pairs"] = [source for source in facts["pairs"] if not source["made"]]
    if "made" in changes:
        facts["ratings"] = [source for source in facts["ratings"] if not source["made"]]
    if made := changes.get("made"):
        facts["ratings"].append({"made": made, "of": of, "cap": 500 * len(made)})
    if not any(source["made"] for source in (*facts["ratings"], *facts["pairs"])):
        facts["harmless"] = []
    for part in ("gate", "debias"):
        facts[part] |= changes.get(part, {})
    return Recipe.model_validate({**facts, "preferred": changes.get("preferred", True), "name": re.sub(r"\W+", "-", name)})


def sections(results: Mapping[str, Any], suites: list[str]) -> dict[str, dict[str, float]]:
    """Accuracy of each method by section of these suites."""
    found: dict[str, dict[str, float]] = {method: {} for method in METHODS}
    for suite in results["suites"]:
        for row in suite["methods"] if suite["name"] in suites else ():
            if row["method"] in found:
                found[row["method"]] |= {f"{suite['name']}: {name}": one["value"] for name, one in row["sections"].items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    parser.add_argument("--features", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--all", action="store_true", help="the recipe's suites too")
    given = parser.parse_args()
    suites = [HELD_OUT, UNSEEN, *(["dev-pairs", "rewardbench-partial"] if given.all else [])]
    kept: dict[str, Any] = {}
    for name in given.only:
        recipe = variant(name, CHANGES[name])
        if not given.all:
            recipe = recipe.model_copy(update={"bench": []})
        train(recipe, given.out / "run", features=given.features or given.out / "features")  # one folder: what is alike is kept
        results = json.loads((given.out / "run" / "report" / "results.json").read_text(encoding="utf-8"))
        kept[name] = found = sections(results, suites)
        for method, by_section in found.items():
            values = list(by_section.values())
            parts = [[v for key, v in by_section.items() if key.startswith(suite)] for suite in suites]
            means = " ".join(f"{100 * sum(part) / len(part):5.1f}" for part in parts if part)
            print(f"{name:20s} {method:20s} {100 * sum(values) / len(values):5.1f} | {means}", flush=True)
        if given.json:
            given.json.write_text(json.dumps({**provenance(), "suites": suites, "variants": kept}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
