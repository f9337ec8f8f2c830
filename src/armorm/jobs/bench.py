"""One model on one benchmark: `armorm bench`.

In: a model's name, a recipe's `Suite`.  Out: a folder with scores, results and a page; `BenchResults`.
Cost: one forward pass per answer; scores are kept as they come, so a run that was stopped goes on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from armorm.bench.aggregate import figures
from armorm.bench.metrics import length_correlation
from armorm.bench.position import position_bias
from armorm.bench.profiles import profile_comparison
from armorm.bench.published import published
from armorm.bench.results import BenchResults, SteeredFacts
from armorm.bench.run import ItemsRead, Judged, Scores, read_and_judge
from armorm.conversation import text_of
from armorm.data.benchmarks.registry import benchmark
from armorm.data.reading import Read, cap_rows
from armorm.data.rows import BenchmarkItem
from armorm.disk import folder_name
from armorm.errors import DataError
from armorm.features.backbone import architecture_of, check_positions, read_config
from armorm.features.loading import backbone_error
from armorm.model.config import ARCHITECTURE
from armorm.model.folder import local
from armorm.model.scorer import ModelScorer
from armorm.owner import owning_folder
from armorm.progress import Reporter, counting
from armorm.recipe import Suite
from armorm.report.bench_report import FILES, write_bench
from armorm.report.provenance import provenance
from armorm.rivals.pairwise import PairwiseModel, has_words
from armorm.rivals.sequence_head import SequenceHead, has_one_logit
from armorm.run.methods import Graded
from armorm.run.rows import read_suite
from armorm.scorers import Reading
from armorm.scoring.profile import Profile
from armorm.sums import require_ours

FORMAT = 2


def run_benchmark(
    model: str,
    suite: Suite,
    out: Path | None = None,
    *,
    profile: Profile | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
    **reading: Unpack[Reading],
) -> BenchResults:
    """Score the suite's items and write `scores.jsonl`, `results.json`, `results.csv` and `report.html` into `out`.

    `out` is runs/bench/MODEL/SUITE unless it is given. With a steering `profile` the items are scored under it as well, and the
    results say what it costs and brings, section by section. Raises CheckpointError when the model can't be loaded, RecipeError
    for a profile that does not fit it, BackboneError for more tokens than the decoder has positions, DataError when the
    benchmark's files can't be had or hold no item that the model can score, StorageError when the folder can't be written.
    """
    reporter = reporter or Reporter()
    reporter.say(f"loading {model}")
    scorer = _scorer(model, profile, **reading)
    reporter.say(f"reading {suite.name}")
    read = read_suite(suite, seed=seed, span=scorer.span if isinstance(scorer, ModelScorer) else "last-turn")
    items = cap_rows(read.rows, suite.limit, seed=seed, strata=lambda item: item.subset)
    if not items:
        raise DataError(f"{suite.name}: no usable item (left out: {read.faults.drops or 'nothing'}): check the file's fields")
    folder = out or Path("runs") / "bench" / folder_name(model) / folder_name(suite.name)
    require_ours(folder, FILES)
    with owning_folder(folder):
        start = time.perf_counter()
        kept = folder / ("verdicts.jsonl" if isinstance(scorer, PairwiseModel) else "scores.jsonl")
        judged = _judged(items, scorer, kept, f"scoring {suite.name}", reporter)
        more: dict[str, Any] = {"max_tokens": scorer.longest}
        if judged.compared is not None:
            more["position"] = position_bias(judged.compared, [item.group for item in items], seed=seed)
        if profile is not None and isinstance(scorer, ModelScorer):
            kept = folder / f"scores-{profile.fingerprint}.jsonl"
            steered = _judged(items, replace(scorer, profile=profile), kept, f"scoring under {profile.name}", reporter)
            more["profile"] = _steered(profile, Graded.by(suite, items), judged.scores, steered.scores, seed)
        seconds = round(time.perf_counter() - start, 1)
        results = _results(model, suite, read, items, judged, seed=seed, seconds=seconds, **more)
        write_bench(results, folder)
    return results.model_copy(update={"folder": str(folder)})


def _scorer(model: str, profile: Profile | None, **reading: Unpack[Reading]) -> ModelScorer | SequenceHead | PairwiseModel:
    # A model of named objectives, a folder with a decoder and one logit, or one with a language model that compares answers.
    model = local(model)
    ours = architecture_of(model) == ARCHITECTURE  # a name that sequence heads have too
    if not ours and (has_one_logit(model) or has_words(model)):
        if profile is not None:
            raise DataError(f"{model} has no named objectives that a profile could steer")
        check_positions(read_config(model, {}, backbone_error(model, "a rival")), reading.get("max_tokens"))
        kind = SequenceHead if has_one_logit(model) else PairwiseModel
        return kind(model, model, **reading)
    scorer = ModelScorer.load(model, **reading)
    scorer.model.basis.bind(profile, 1)  # says what does not fit before anything is scored
    return scorer


def _judged(
    items: Sequence[BenchmarkItem], scorer: ModelScorer | SequenceHead | PairwiseModel, kept: Path, label: str, reporter: Reporter
) -> Judged:
    with reporter.bar(label, len(items)) as advance:
        judged = read_and_judge(items, scorer, kept=kept, progress=counting(advance, "items"))
    if all(np.isnan(scores).any() for scores in judged.scores):
        raise DataError(f"{scorer.name}: not one of the {len(items)} items can be scored; the first: {_first(judged.read)}")
    return judged


def _first(read: ItemsRead) -> str:
    return next(iter(read.examples), "the model gives no number")


def _steered(profile: Profile, graded: Graded, base: Sequence[Scores], steered: Sequence[Scores], seed: int) -> SteeredFacts:
    before, after = graded.outcomes(base), graded.outcomes(steered)
    return SteeredFacts(
        **profile.to_json(),
        figures=figures(after, graded.aggregates, seed=seed),
        comparison=tuple(profile_comparison(before, after, graded.aggregates, seed=seed)),
    )


def _results(
    model: str,
    suite: Suite,
    read: Read[BenchmarkItem],
    items: Sequence[BenchmarkItem],
    judged: Judged,
    *,
    seed: int,
    **more: Any,
) -> BenchResults:
    # Figures with intervals, length correlation, published rows beside them; `more` are the fields that are there already.
    graded, met = Graded.by(suite, items), judged.read
    over = {"over-cap": len(read.rows) - len(items)} if len(items) < len(read.rows) else {}
    named = None if suite.benchmark is None else benchmark(suite.benchmark)
    lengths = np.array([len(text_of(answer)) for item in items for answer in item.answers], dtype=np.float64)
    groups = [item.group for item in items for _ in item.answers]
    return BenchResults(
        format=FORMAT,
        **provenance(),
        model=model,
        suite=suite.name,
        title=named.title if named else suite.name,
        rule=graded.rule.value,
        items=len(items),
        answers=sum(len(item.answers) for item in items),
        prompts=len({item.group for item in items}),
        published_items=named.rows if named else None,
        left_out=dict(Counter(read.faults.drops) + Counter(over) + Counter(met.faults)),
        fault_examples=(*read.faults.examples, *met.examples),
        asked=met.asked,
        truncated=met.truncated,
        notes=met.notes,
        figures=figures(graded.outcomes(judged.scores), graded.aggregates, seed=seed),
        length=length_correlation(np.concatenate(judged.scores), lengths, groups, seed=seed),
        published=published(suite.benchmark) if suite.benchmark else (),
        **more,
    )
