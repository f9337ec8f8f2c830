"""What an audit finds as the parts of recipes/open-data.yaml are added to the paper's form, one by one.

    python benchmarks/audit_variants.py [--only NAME …] [--out runs/variants] [--features FOLDER] [--limit 80] [--json FILE]

Needs ARMORM_DATA. Each row is an `armorm train` without its suites and an `armorm audit` on the dev pairs. Printed per change:
the shift of the score in standard deviations, with ✗ where it is not what a good model does.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from unseen_variants import AS_PAPER, MADE, variant

from armorm.bench.audit import AuditResults
from armorm.jobs.audit import run_audit
from armorm.report.provenance import provenance
from armorm.run.train import train

STEPS: dict[str, dict[str, Any]] = {
    "paper's form": AS_PAPER,
    "gate held": {**AS_PAPER, "gate": {}},
    "… and contrast pairs": {"debias": AS_PAPER["debias"], "preferred": False, "made": []},
    "… and padding": {"preferred": False, "made": []},
    "… and preferred": {"made": []},
    "… and conciseness: the recipe": {},
    "five made objectives instead": {"made": MADE},
}


def audited(name: str, given: argparse.Namespace) -> AuditResults:
    """The audit of a variant's model, trained where it has not been."""
    recipe = variant(name, STEPS[name]).model_copy(update={"bench": [], "unseen_sources": False})
    run = train(recipe, given.out / "audited", features=given.features or given.out / "features")
    file = Path(os.environ["ARMORM_DATA"]) / "bench" / "dev-pairs.jsonl.gz"
    page = given.out / "audits" / recipe.name
    return run_audit(str(run.folder / "model"), file, page, run=run.folder, limit=given.limit)


def told(results: AuditResults) -> dict[str, Any]:
    """By view: each change's shift with its interval and whether it is as expected, and length within prompts."""
    return {
        view.name: {
            "length within prompts": view.length.within_prompt.to_json(),
            "shifts": {
                one.name: {
                    "expected": one.expected,
                    "as expected": one.views[view.name].as_expected,
                    **one.views[view.name].shift.to_json(),
                }
                for one in results.perturbations
            },
        }
        for view in results.views
    }


def line(name: str, view: dict[str, Any]) -> str:
    """One view of one variant as a line."""
    shifts = view["shifts"].values()
    good, bad = ([one for one in shifts if one["expected"] == kind] for kind in ("worse", "same"))
    falls = sum(one["as expected"] for one in good)
    most = max(one["value"] for one in bad)
    each = " ".join(f"{key} {one['value']:+.2f}{'' if one['as expected'] else '✗'}" for key, one in view["shifts"].items())
    return f"{name:36s} {falls} of {len(good)} fall, the neutral ones gain at most {most:+.2f} | {each}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=STEPS, default=list(STEPS))
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    parser.add_argument("--features", type=Path)
    parser.add_argument("--limit", type=int, default=80)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    kept: dict[str, Any] = {}
    for name in given.only:
        kept[name] = told(audited(name, given))
        for view, found in kept[name].items():
            print(line(f"{name}: {view}", found), flush=True)
        if given.json:
            facts = {**provenance(), "limit": given.limit, "variants": kept}
            given.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
