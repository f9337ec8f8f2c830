"""`armorm audit`: answers of a file, changed in ways that should not matter or should hurt, scored in every view.

In: a model, a file of answers, a run's folder (for its Bradley–Terry rival).  Out: `audit.json` and `audit.html` in a folder.
Cost: one forward pass per answer and change; all views read the same pass. What is scored is kept as it comes, so a run that
was stopped goes on, and further prompts or changes compute those alone.

Views: the model; the same without debiasing (same gate, rewards as the probe gives them); the run's Bradley–Terry rival. The
first answer of a row is changed (of a pair: the chosen one), so that what should hurt can; all its answers count for the
correlation with length. Of a prompt with several rows, one is taken.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from jaxtyping import Float

from armorm.bench.audit import AuditResults, Changed, Example, Originals, RivalFacts, View, Viewed, change_facts, view_facts
from armorm.bench.perturbations import PERTURBATIONS, Case, Perturbation
from armorm.conversation import Conversation, prompt_group, text_of
from armorm.data.answer_rows import AnswerRow, answer_rows, group_neighbours
from armorm.data.files import records
from armorm.data.shapes import RowFormat
from armorm.disk import folder_name
from armorm.errors import ArmormError, BackboneError, DataError
from armorm.features.spec import FeatureSpec
from armorm.kept import Kept
from armorm.model.reward_model import RewardModel
from armorm.model.scorer import ModelScorer
from armorm.owner import owning_folder
from armorm.progress import Reporter
from armorm.report.audit_report import FILES, write_audit
from armorm.report.provenance import provenance
from armorm.rivals.bradley_terry import BradleyTerry, load_bradley_terry
from armorm.scorers import AnswerFeatures, Reading
from armorm.scoring.table import ScoreTable
from armorm.sums import require_ours
from armorm.user_files import stem_of

FORMAT = 2
PORTION = 128
"""Conversations that are scored before the next are kept; answers to one prompt stay together."""
MAIN, RAW, RIVAL = "armorm", "not-debiased", "bradley-terry"
LONGEST = 400


def run_audit(
    model: str,
    file: Path,
    out: Path | None = None,
    *,
    run: Path | None = None,
    limit: int | None = 100,
    only: Sequence[str] = (),
    seed: int = 0,
    reporter: Reporter | None = None,
    rows: RowFormat = RowFormat(),  # noqa: B008 - frozen
    **reading: Unpack[Reading],
) -> AuditResults:
    """Audit a model on a file of answers, and write the tables and the page into `out` (runs/audit/MODEL/FILE unless given).

    `run` is the run whose Bradley–Terry rival stands beside (default: the one that the model's folder is in); `limit` takes so
    many prompts, the same ones every time; `only` names changes; `rows` says how the file is read. Raises DataError for a file
    without usable answers or an unknown change, CheckpointError when the model can't be loaded, BackboneError for more tokens
    than the decoder has positions, StorageError when the folder can't be written.
    """
    reporter = reporter or Reporter()
    wanted = _wanted(only)
    items, left_out = _items(file, limit, rows)
    if not items:
        raise DataError(f"{file}: no usable answer (left out: {left_out or 'nothing'}): check the file's fields")
    reporter.say(f"loading {model}")
    scorer = ModelScorer.load(model, **reading)
    rival = _rival(scorer.model, model, run, reporter)
    folder = out or Path("runs") / "audit" / folder_name(model) / folder_name(stem_of(file))
    require_ours(folder, FILES)
    panel = _Panel(scorer, rival)
    cases = _cases(items, panel.header, wanted, seed)
    with owning_folder(folder):
        key = f"{scorer.fingerprint}/{_digest(rival.weights.tobytes()) if rival else 'no rival'}/{FORMAT}"
        kept = Kept(folder / "audit-scores.jsonl", key)
        _score(cases, panel, kept, reporter, file.name)
        views, originals, changes = _before_and_after(cases, wanted, panel, kept)
        results = AuditResults(
            format=FORMAT,
            **provenance(),
            model=model,
            file=str(file),
            seed=seed,
            prompts=len({case.group for case, _ in _whole(cases, kept)}),
            left_out=dict(Counter(left_out) + Counter(_refused(cases, kept))),
            rival=None if rival is None else RivalFacts(feature=rival.feature, strength=rival.strength),
            views=tuple(view_facts(view, originals, seed=seed) for view in views),
            perturbations=tuple(change_facts(change, views, originals, seed=seed) for change in changes),
            objectives=originals.objectives,
            max_tokens=scorer.longest,
            **_how_read(cases, kept),
        )
        write_audit(results, folder)
    return results.model_copy(update={"folder": str(folder)})


# -- which answers, and what becomes of them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Item:
    """A row's usable answers; the first one is changed."""

    group: str
    answers: tuple[Conversation, ...]
    changed: Mapping[str, Conversation]

    @property
    def all(self) -> list[Conversation]:
        return [*self.answers, *self.changed.values()]


def _wanted(only: Sequence[str]) -> tuple[Perturbation, ...]:
    known = {p.name: p for p in PERTURBATIONS}
    if unknown := [name for name in only if name not in known]:
        raise DataError(f"no change is called {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(p for p in PERTURBATIONS if not only or p.name in only)


def _items(
    file: Path,
    limit: int | None,
    how: RowFormat = RowFormat(),  # noqa: B008 - frozen
) -> tuple[list[AnswerRow], dict[str, int]]:
    # The prompts with the smallest hashes, of each the row with the smallest: the same whatever the file's order, and more of
    # them with a larger limit. One row per prompt, so that a prompt with a hundred rows counts once.
    left_out: dict[str, int] = {}
    kept: dict[str, tuple[str, int, AnswerRow]] = {}
    heap: list[tuple[int, str]] = []
    for order, row in enumerate(group_neighbours(answer_rows(records(file, how.cells), how))):
        if not _plain(row):
            reason = "answer-of-turns" if row.error is None else row.error.partition(":")[0]
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        group, entry = prompt_group(row.context), (_digest(repr(row.answers).encode("utf-8", "replace")), order, row)
        if group in kept:
            kept[group] = min(kept[group], entry, key=lambda one: one[:2])
            continue
        heapq.heappush(heap, (-int(_digest(group.encode()), 16), group))
        kept[group] = entry
        if limit is not None and len(heap) > limit:
            del kept[heapq.heappop(heap)[1]]
    return [row for _, _, row in sorted(kept.values(), key=lambda one: one[1])], left_out


def _cases(rows: Sequence[AnswerRow], header: str, wanted: Sequence[Perturbation], seed: int) -> list[_Item]:
    found = []
    for i, row in enumerate(rows):
        usable = _plain(row)
        answer = text_of(row.answers[usable[0]])
        case = Case(row.context, answer, _other(rows, i), header)
        changed = {p.name: p.apply(case, seed=seed) for p in wanted}
        turns = {n: [*row.context, {"role": "assistant", "content": text}] for n, text in changed.items() if text is not None}
        found.append(_Item(prompt_group(row.context), tuple(row.conversation(j) for j in usable), turns))  # type: ignore[arg-type]
    return found


def _plain(row: AnswerRow) -> list[int]:
    # The answers that changes to a text can be made to.
    return [j for j, (a, fault) in enumerate(zip(row.answers, row.faults, strict=True)) if fault is None and isinstance(a, str)]


def _other(rows: Sequence[AnswerRow], i: int) -> str:
    mine = prompt_group(rows[i].context)
    for row in (*rows[i + 1 :], *rows[:i]):
        if prompt_group(row.context) != mine:
            return text_of(row.answers[_plain(row)[0]])
    return ""


# -- scores in every view ----------------------------------------------------------------------------------------------------


class _Panel:
    """All views of one conversation, from one pass of the decoder."""

    def __init__(self, scorer: ModelScorer, rival: BradleyTerry | None) -> None:
        self.engine, self.model, self.rival = scorer.engine, scorer.model, rival
        self.header = str(self.model.renderer.tokenizer.decode(list(self.model.renderer.header_ids), skip_special_tokens=False))
        matrix = self.model.basis.transform.float().numpy()
        self.debiases = not np.allclose(matrix, np.eye(*matrix.shape), atol=1e-7)

    def views(self, parts: Sequence[str]) -> list[View]:
        names = tuple(self.model.objectives.names)
        found = [View(MAIN, "ArmoRM + MoE", tuple(parts))]
        if self.debiases:
            found.append(View(RAW, "… without debiasing", names))
        return [*found, *([View(RIVAL, self.rival.label)] if self.rival else [])]

    def score(self, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
        """Facts per conversation: its `fault` alone where the chat template refuses it."""
        feature = None if self.rival is None else FeatureSpec.parse(self.rival.feature)
        table = self.engine.score(conversations, features=[] if feature is None else [feature])
        rivals = np.full(len(table), np.nan)
        if self.rival is not None:
            nothing, tokens = np.empty((len(table), 0)), table.tokens.astype(np.float64)
            rivals = self.rival.score_features(AnswerFeatures(table.features[str(feature)], nothing, tokens))
        faults = enumerate(table.faults)
        return [self._facts(table, i, float(rivals[i])) if fault is None else {"fault": fault} for i, fault in faults]

    def _facts(self, table: ScoreTable, i: int, rival: float) -> dict[str, Any]:
        score = table[i]
        facts = {name: dict(getattr(score, name)) for name in ("rewards", "gate", "contributions")}
        read = {"tokens": int(table.tokens[i]), "truncated": score.truncated, "notes": list(score.notes)}
        return {**read, **facts, **({RIVAL: rival} if self.rival else {})}


def _score(cases: Sequence[_Item], panel: _Panel, kept: Kept, reporter: Reporter, label: str) -> None:
    total = sum(len(case.all) for case in cases)
    with reporter.bar(f"auditing on {label}", total) as advance:
        done, portion = 0, dict[str, Conversation]()
        for place, case in enumerate(cases):
            portion |= {k: c for c in case.all if (k := _key(c)) not in kept.values}
            done += len(case.all)
            if portion and (len(portion) >= PORTION or place == len(cases) - 1):
                kept.add(dict(zip(portion, panel.score(list(portion.values())), strict=True)))
                portion = {}
            advance(done, "answers")


# -- numbers -----------------------------------------------------------------------------------------------------------------


def _before_and_after(
    cases: Sequence[_Item], wanted: Sequence[Perturbation], panel: _Panel, kept: Kept
) -> tuple[list[View], Originals, list[Changed]]:
    # The views, the answers as they are, and every change of them. A prompt whose first answer is refused has nothing to change.
    whole = _whole(cases, kept)
    originals = [f for _, facts in whole for f in facts]
    if not originals:
        raise DataError(
            f"not one answer of the file can be audited; the first: {kept.values[_key(cases[0].answers[0])]['fault']}"
        )
    firsts = np.cumsum([0, *(len(facts) for _, facts in whole)])[:-1]
    views = panel.views(list(originals[0]["contributions"]))
    objectives = tuple(panel.model.objectives.names)
    before = Originals(
        groups=[case.group for case, facts in whole for _ in facts],
        lengths=np.array([f["tokens"] for f in originals], dtype=np.float64),
        views={v.name: _viewed(v, originals) for v in views},
        rewards=_parts(originals, "rewards", objectives),
        objectives=objectives,
    )
    changes = []
    for p in wanted:
        places = [(i, case) for i, (case, _) in enumerate(whole) if p.name in case.changed]
        after = [(i, case, f) for i, case in places if "fault" not in (f := kept.values[_key(case.changed[p.name])])]
        if not after:
            continue
        facts = [f for _, _, f in after]
        at = firsts[[i for i, _, _ in after]].astype(np.int64)
        moved = {v.name: _viewed(v, facts) for v in views}
        gain = moved[MAIN].scores - before.views[MAIN].scores[at]
        best = int(np.argmax(gain))
        example = _example(after[best][1], p.name, before.views[MAIN].scores[at[best]], gain[best])
        changes.append(Changed(p, at, moved, _parts(facts, "rewards", objectives), example))
    return views, before, changes


def _whole(cases: Sequence[_Item], kept: Kept) -> list[tuple[_Item, list[dict[str, Any]]]]:
    # The cases that can be audited, with the facts of their answers that have a score.
    found = [(case, [kept.values[_key(c)] for c in case.answers]) for case in cases]
    return [(case, [f for f in facts if "fault" not in f]) for case, facts in found if "fault" not in facts[0]]


def _refused(cases: Sequence[_Item], kept: Kept) -> dict[str, int]:
    # By fault, answers that the chat template refuses.
    faults = [kept.values[_key(c)].get("fault") for case in cases for c in case.answers]
    return Counter(fault.partition(":")[0] for fault in faults if fault is not None)


def _how_read(cases: Sequence[_Item], kept: Kept) -> dict[str, Any]:
    # What was cut and what the template left out, of the answers and of their changes.
    whole = _whole(cases, kept)
    originals = [f for _, facts in whole for f in facts]
    found = [kept.values[_key(c)] for case, _ in whole for c in case.changed.values()]
    changed = [f for f in found if "fault" not in f]
    return {
        "answers": len(originals),
        "truncated": sum(f["truncated"] for f in originals),
        "changed": len(changed),
        "changed_truncated": sum(f["truncated"] for f in changed),
        "notes": Counter(note for f in originals for note in f["notes"]),
    }


def _viewed(view: View, facts: Sequence[Mapping[str, Any]]) -> Viewed:
    if view.name == RIVAL:
        return Viewed(np.array([f[RIVAL] for f in facts]), np.empty((len(facts), 0)))
    if view.name == RAW:
        parts = _parts(facts, "gate", view.parts) * _parts(facts, "rewards", view.parts)
    else:
        parts = _parts(facts, "contributions", view.parts)
    return Viewed(parts.sum(axis=1), parts)


def _parts(facts: Sequence[Mapping[str, Any]], kind: str, names: Sequence[str]) -> Float[np.ndarray, "n k"]:
    return np.array([[f[kind][n] for n in names] for f in facts])


def _example(case: _Item, name: str, before: float, gain: float) -> Example:
    # The answer that gains most in the model's own view: where to look first.
    return Example(
        prompt=_cut(Case(case.answers[0][:-1], "").question),
        answer=_cut(case.answers[0][-1]["content"]),
        changed=_cut(case.changed[name][-1]["content"]),
        before=float(before),
        after=float(before + gain),
    )


def _cut(text: str) -> str:
    # Both ends of a text: changes are made at either.
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} […] {text[-half:]}"


# -- small change ------------------------------------------------------------------------------------------------------------


def _rival(model: RewardModel, name: str, run: Path | None, reporter: Reporter) -> BradleyTerry | None:
    folder = (run if run is not None else Path(name).parent) / "bench"
    rival = load_bradley_terry(folder)
    if rival is None:
        if run is not None:
            raise DataError(f"{folder} holds no Bradley–Terry rival: name a run that `armorm train` finished, or leave `run` out")
        reporter.say("no Bradley–Terry rival beside the model: name a run to compare with one")
        return None
    try:
        spec = FeatureSpec.parse(rival.feature)
        model.backbone.check(spec.parts)
        if len(rival.weights) != len(spec.parts) * model.backbone.width:
            raise BackboneError(f"it reads features of width {len(rival.weights)}")
    except ArmormError as error:
        reporter.warn(f"the Bradley–Terry rival can't read this model's features ({error}): left out")
        return None
    return rival


def _key(conversation: Conversation) -> str:
    return _digest(repr([sorted(message.items()) for message in conversation]).encode("utf-8", "replace"))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest()
