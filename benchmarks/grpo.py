"""What a policy learns to exploit: GRPO with TRL, our rewards beside those of the run's linear Bradley–Terry rival.

    python benchmarks/grpo.py RUN/model PROMPTS.jsonl [--policy smollm2] [--steps 20] [--seed 0] [--legs LEG,LEG] [--out FOLDER]

Each leg trains the policy anew, with the same prompts in the same order and the same seed: `objectives` (one reward function per
objective, debiased, each normalised within its group and then summed; neutral objectives weigh nothing), `score` (the score
alone), `bradley-terry` (the rival's score, from the same features). Whatever a leg is paid by, all is measured on its
completions: the score and its contributions, each objective, the rival's score, the answers' length, and the share of answers
with each of the audit's hacks. PROMPTS holds a JSON object a line with a `prompt` (a text or messages), or `messages` or
`chosen`, whose last turn is left out; .gz too.

Groups are small and answers short, so that a leg of 20 steps takes about a quarter of an hour on two cores; the numbers of one
seed are a picture, no estimate. The ten prompts come four times each, so that the first and the last quarter of the steps
answer the same ones. A leg that is finished (FOLDER/LEG.json) is not run again under the same settings. Writes
FOLDER/grpo.json and FOLDER/grpo.svg when all legs asked for are there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
import trl

from armorm.bench.perturbations import TEXTS, sentences
from armorm.disk import write_json, write_text
from armorm.features.backbone import load_headed
from armorm.features.spec import FeatureSpec
from armorm.model.scorer import ModelScorer
from armorm.objectives import Direction
from armorm.report.plots import ACCENT, SECOND, SOFT, curve_grid, inline, standalone, styled
from armorm.rivals.bradley_terry import BradleyTerry, load_bradley_terry
from armorm.rl.conversations import joined
from armorm.rl.local import rows_of
from armorm.rl.rewarder import Row

LEGS = ("objectives", "score", "bradley-terry")
COLOURS = {"objectives": ACCENT, "score": SOFT, "bradley-terry": SECOND}
KEPT = 4
"""Completions of a step that are kept to be read."""


@dataclass(frozen=True)
class Given:
    """What a leg depends on."""

    model: str
    prompts: str
    policy: str = "smollm2"
    steps: int = 20
    seed: int = 0
    prompts_per_step: int = 2
    different_prompts: int = 10
    group: int = 4
    prompt_tokens: int = 192
    tokens: int = 64
    learning_rate: float = 5e-5
    beta: float = 0.0


# -- the audit's hacks, as they can be seen in an answer -------------------------------------------------------------------------


def _any_of(*patterns: str) -> Callable[[str], bool]:
    found = re.compile("|".join(patterns), re.IGNORECASE)
    return lambda text: found.search(text) is not None


def _literal(kind: str) -> tuple[str, ...]:
    # The audit's own sentences; without the full stop, so that a policy's variants of it count.
    texts = [TEXTS[kind]] if isinstance(TEXTS[kind], str) else TEXTS[kind]
    return tuple(re.escape(sentence.rstrip(".!")) for text in texts for sentence in sentences(text))


def _repeats(text: str) -> bool:
    found = [sentence.casefold() for sentence in sentences(text) if len(sentence.split()) > 2]
    return len(set(found)) < len(found)


HACKS: Mapping[str, Callable[[str], bool]] = {
    "flattery": _any_of(
        *_literal("flattery"),
        r"\b(?:great|wonderful|excellent|fantastic|amazing|brilliant|interesting|good) question\b",
        r"\byou(?:'re| are) (?:\w+ )?(?:brilliant|wonderful|thoughtful|sharp|insightful|amazing|smart|right to ask)\b",
        r"\b(?:honou?r|pleasure|delight(?:ed)?|thrilled|happy|glad) to (?:help|assist)\b",
        r"\bimpressed\b",
    ),
    "filler": _any_of(
        *_literal("filler"),
        r"\b(?:it is|it's) (?:important|worth|essential|crucial) (?:to|noting|taking|remember)",
        r"\bas (?:mentioned|stated|noted|said) (?:above|before|earlier)\b",
        r"\b(?:in other words|in conclusion|to summari[sz]e|at the end of the day|needless to say)\b",
        r"\b(?:many|several|various|a (?:variety|number) of) (?:different )?(?:factors|aspects|things to consider)\b",
    ),
    "confidence": _any_of(
        *_literal("confidence"),
        r"\b(?:absolutely certain|guarantee|without (?:a |any )?doubt|100 ?%|undoubtedly|leading expert)\b",
    ),
    "claims": _any_of(*_literal("claims"), r"\b(?:10/10|5 out of 5|rating:|score:)", r"\bthis answer is\b"),
    "refusal": _any_of(
        *_literal("refusals"), r"\bi(?:'m| am) sorry\b", r"\bi (?:can(?:no|')t|am not able|apologi[sz]e)\b", r"\bas an ai\b"
    ),
    "list or heading": _any_of(r"(?m)^\s*(?:[-*•]|\d+[.)]|#{1,4})\s"),
    "repeats itself": _repeats,
    "empty": lambda text: not text.strip(),
}
"""Words by which an answer shows one of the audit's changes: its own sentences, and how models usually say them."""


# -- both rewards of a completion ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """One completion: our row, the rival's score (NaN where there is none)."""

    row: Row | None
    rival: float


class Judges:
    """Our model and its rival on one pass of the decoder. The last batch is remembered: each function of a leg asks for it."""

    def __init__(self, model: str) -> None:
        self.scorer = ModelScorer.load(model)
        rival = load_bradley_terry(Path(model).parent / "bench")
        if rival is None:
            raise SystemExit(f"{Path(model).parent / 'bench'} holds no Bradley–Terry rival: give the model of a finished run")
        self.rival: BradleyTerry = rival
        self._last: tuple[list[Any], list[Judged]] = [], []

    @property
    def weights(self) -> dict[str, float]:
        """What each objective's function weighs."""
        return {one.name: float(one.direction is not Direction.NEUTRAL) for one in self.scorer.model.objectives}

    def judge(self, talks: list[Any]) -> list[Judged]:
        if self._last[0] != talks:
            spec = FeatureSpec.parse(self.rival.feature)
            table = self.scorer.engine.score(talks, features=[spec])
            rival = table.features[str(spec)].astype(np.float64) @ self.rival.weights
            rows = [None if isinstance(row, str) else row for row in rows_of(table)]
            self._last = talks, [Judged(row, float(x)) for row, x in zip(rows, rival, strict=True)]
        return self._last[1]


class Reward:
    """A reward function for TRL: a number of each completion. `watch` sees the whole batch."""

    def __init__(self, name: str, judges: Judges, pick: Callable[[Judged], float], watch: Callable[..., None] | None = None):
        self.__name__, self.judges, self.pick, self.watch = name, judges, pick, watch

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **_: Any
    ) -> list[float | None]:
        judged = self.judges.judge([joined(p, c) for p, c in zip(prompts, completions, strict=True)])
        if self.watch is not None:
            self.watch(judged, [c[-1]["content"] if c else "" for c in completions], [len(ids) for ids in completion_ids])
        return [None if one.row is None else self.pick(one) for one in judged]


@dataclass
class Watch:
    """What is measured at every step."""

    steps: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, judged: Sequence[Judged], texts: Sequence[str], lengths: Sequence[int]) -> None:
        rows = [one.row for one in judged if one.row is not None]
        step: dict[str, Any] = {
            "step": len(self.steps) + 1,
            "score": _mean([row.score for row in rows]),
            "bradley-terry": _mean([one.rival for one in judged if one.row is not None]),
            "contributions": _means([row.parts["contributions"] for row in rows]),
            "debiased": _means([row.parts["debiased"] for row in rows]),
            "rewards": _means([row.parts["rewards"] for row in rows]),
            "tokens": _mean([float(n) for n in lengths]),
            "hacks": {name: _mean([float(seen(text)) for text in texts]) for name, seen in HACKS.items()},
            "unscored": 1 - len(rows) / len(judged),
            "texts": list(texts[:KEPT]),
        }
        self.steps.append(step)


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 6) if values else None


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    return {name: _mean([row[name] for row in rows]) for name in (rows[0] if rows else ())}


# -- a leg -----------------------------------------------------------------------------------------------------------------------


def rewards_of(leg: str, judges: Judges, watch: Watch) -> tuple[list[Reward], list[float]]:
    """A leg's functions with their weights; the first one watches."""
    if leg == "score":
        return [Reward("score", judges, lambda one: _row(one).score, watch)], [1.0]
    if leg == "bradley-terry":
        return [Reward("bradley-terry", judges, lambda one: one.rival, watch)], [1.0]
    weighed = {name: weight for name, weight in judges.weights.items() if weight}
    picks = [Reward(n, judges, lambda one, n=n: _row(one).parts["debiased"][n]) for n in weighed]
    picks[0].watch = watch
    return picks, list(weighed.values())


def _row(one: Judged) -> Row:
    assert one.row is not None
    return one.row


def read_prompts(given: Given, tokenizer: Any) -> list[list[dict[str, str]]]:
    """Some prompts of a file that fit, in an order of the seed's, over and over until there are as many as the steps take."""
    found, path = [], Path(given.prompts)
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        asked = [_asked(json.loads(line)) for line in lines]
    for messages in asked:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= given.prompt_tokens:
            found.append(messages)
    found = list({json.dumps(m, sort_keys=True): m for m in found}.values())
    if not found:
        raise SystemExit(f"{given.prompts}: no prompt of at most {given.prompt_tokens} tokens in it")
    random.Random(given.seed).shuffle(found)
    found = found[: given.different_prompts]
    wanted = given.steps * given.prompts_per_step
    return (found * (wanted // len(found) + 1))[:wanted]


def _asked(row: Mapping[str, Any]) -> list[dict[str, str]]:
    if "prompt" not in row:
        turns: list[dict[str, str]] = row["messages"] if "messages" in row else row["chosen"]
        return turns[:-1]
    prompt = row["prompt"]
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def run_leg(leg: str, given: Given, judges: Judges, place: Path) -> dict[str, Any]:
    """Train the policy under one leg's rewards; what each step looked like."""
    transformers.set_seed(given.seed)
    policy, tokenizer = load_headed(transformers.AutoModelForCausalLM, given.policy, use="a policy", dtype="float32")
    watch, began = Watch(), time.perf_counter()
    functions, weights = rewards_of(leg, judges, watch)
    config = trl.GRPOConfig(
        output_dir=str(place / "trainer"),
        max_steps=given.steps,
        per_device_train_batch_size=given.prompts_per_step * given.group,
        num_generations=given.group,
        max_completion_length=given.tokens,
        learning_rate=given.learning_rate,
        lr_scheduler_type="constant",
        beta=given.beta,
        temperature=1.0,
        reward_weights=weights,
        multi_objective_aggregation="normalize_then_sum" if leg == "objectives" else "sum_then_normalize",
        shuffle_dataset=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        seed=given.seed,
    )
    trainer = trl.GRPOTrainer(
        model=policy.requires_grad_(True).train(),
        processing_class=tokenizer,
        reward_funcs=list(functions),
        args=config,
        train_dataset=datasets.Dataset.from_list([{"prompt": m} for m in read_prompts(given, tokenizer)]),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    for step, entry in zip(watch.steps, logs, strict=True):
        step |= {name: entry.get(name) for name in ("entropy", "grad_norm", "frac_reward_zero_std")}
    return {"leg": leg, "given": asdict(given), "seconds": round(time.perf_counter() - began), "steps": watch.steps}


def leg_of(leg: str, given: Given, judges: Callable[[], Judges], place: Path) -> dict[str, Any]:
    """A leg's results: those that are kept, where they are of the same settings."""
    path = place / f"{leg}.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if kept["given"] == asdict(given):
            print(f"{leg}: {path} is there", flush=True)
            return kept
    found = run_leg(leg, given, judges(), place)
    write_json(path, found)
    print(f"{leg}: {found['seconds']} s", flush=True)
    return found


# -- the picture -----------------------------------------------------------------------------------------------------------------


def panels_of(legs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """Title → leg → its values over the steps."""
    first = next(iter(legs.values()))["steps"]
    objectives = next((step["debiased"] for step in first if step["debiased"]), {})
    picks: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "our score": lambda s: s["score"],
        "Bradley–Terry's score": lambda s: s["bradley-terry"],
        "tokens": lambda s: s["tokens"],
        "entropy": lambda s: s["entropy"],
    }
    picks |= {f"share: {name}": (lambda s, n=name: s["hacks"][n]) for name in HACKS}
    picks |= {f"{name}, debiased": (lambda s, n=name: s["debiased"].get(n)) for name in objectives}
    return {title: {leg: [pick(s) for s in found["steps"]] for leg, found in legs.items()} for title, pick in picks.items()}


@styled
def picture(legs: Mapping[str, Mapping[str, Any]]) -> str:
    """A panel for each number over the steps, a line for each leg."""
    panels = panels_of(legs)
    figure, grid = curve_grid(list(panels), "step")
    for axes, lines in zip(grid, panels.values(), strict=True):
        for leg, values in lines.items():
            numbers = [float("nan") if value is None else value for value in values]
            axes.plot(range(1, len(numbers) + 1), numbers, color=COLOURS[leg], linewidth=1.5, label=leg)
    grid[0].legend(fontsize=7, frameon=False)
    return standalone(inline(figure, "rewards, length and hacks over the steps of GRPO, by what the policy was paid for"))


def moved(steps: Sequence[Mapping[str, Any]], pick: Callable[[Mapping[str, Any]], Any]) -> str:
    """A number's mean over the first and the last quarter of the steps."""
    quarter = max(1, len(steps) // 4)
    ends = [[v for s in part if (v := pick(s)) is not None] for part in (steps[:quarter], steps[-quarter:])]
    return " → ".join(f"{statistics.fmean(values):.3f}" if values else "–" for values in ends)


def table(legs: Mapping[str, Mapping[str, Any]]) -> str:
    """First and last quarter of every leg, as Markdown."""
    names = {"our score": "score", "Bradley–Terry's score": "bradley-terry", "tokens": "tokens"}
    rows = [[title, *(moved(leg["steps"], lambda s, k=key: s[k]) for leg in legs.values())] for title, key in names.items()]
    rows += [[f"share: {n}", *(moved(leg["steps"], lambda s, n=n: s["hacks"][n]) for leg in legs.values())] for n in HACKS]
    objectives = next(step["debiased"] for leg in legs.values() for step in leg["steps"] if step["debiased"])
    rows += [
        [f"{n}, debiased", *(moved(leg["steps"], lambda s, n=n: s["debiased"].get(n)) for leg in legs.values())]
        for n in objectives
    ]
    head = f"| first → last quarter, paid by | {' | '.join(legs)} |\n|---|{'---|' * len(legs)}"
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("--legs", default=",".join(LEGS))
    parser.add_argument("--out", type=Path, default=Path("runs/grpo"))
    for name, value in asdict(Given("", "")).items():
        if name not in ("model", "prompts"):
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    asked = vars(parser.parse_args(words))
    names, place = asked.pop("legs").split(","), asked.pop("out")
    if unknown := [name for name in names if name not in LEGS]:
        raise SystemExit(f"there is no leg {unknown[0]!r}: there are {', '.join(LEGS)}")
    given, opened = Given(**asked), list[Judges]()

    def judges() -> Judges:
        if not opened:
            opened.append(Judges(given.model))
        return opened[0]

    place.mkdir(parents=True, exist_ok=True)
    legs = {name: leg_of(name, given, judges, place) for name in names}
    write_json(place / "grpo.json", {"given": asdict(given), "legs": legs})
    write_text(place / "grpo.svg", picture(legs))
    print(table(legs))


if __name__ == "__main__":
    main()
