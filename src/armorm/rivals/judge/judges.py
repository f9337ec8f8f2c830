"""Judges: a language model's verdicts on pairs of answers, or its ratings of single ones, as the benchmark reads them.

In: `JudgeSettings`, a folder of replies; then conversations, or pairs of them with one prompt.
Out: `PairwiseJudge` (a `PairScorer`), `PointwiseJudge` (a `Scorer`).
Cost: two requests a pair, one request an answer; none for what was asked before. For a local model a hash of its files; it is
loaded when it is asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from armorm.conversation import Conversation, fault_in
from armorm.judge_settings import LOCAL, REMOTE, JudgeSettings
from armorm.kept import FORMAT, Kept
from armorm.rivals.judge.asking import Asker, OnProgress
from armorm.rivals.judge.completing import Completer, Usage
from armorm.rivals.judge.local import LocalModel
from armorm.rivals.judge.remote import RemoteModel
from armorm.rivals.judge.template import Template, template_of
from armorm.rivals.judge.verdicts import rating, verdict
from armorm.scorers import Preferences


@dataclass(frozen=True)
class _Judge:
    # `label` is what a table calls it; `fingerprint` names what its verdicts depend on: model, endpoint, template, limits.
    name: str
    label: str
    fingerprint: str
    template: Template
    asker: Asker

    @property
    def usage(self) -> Usage:
        return self.asker.usage

    def _refuse(self, *conversations: Conversation) -> bool:
        fault = next(filter(None, map(fault_in, conversations)), None)
        if fault is not None:
            self.usage.refused[str(fault)] += 1
        return fault is not None


class PairwiseJudge(_Judge):
    """Compares two answers to one prompt, in both orders; a tie is 0.5."""

    def prefer(self, pairs: Sequence[tuple[Conversation, Conversation]]) -> Preferences:
        """Verdicts on n pairs (a, b): P(a ≻ b) with a shown first, and with b shown first; NaN where the reply says none.

        A pair with messages that are no conversation has no verdict; its reasons are counted in `usage.refused`. Raises
        ConversationError for a pair whose answers don't share their prompt, and what the model raises when it can't be asked
        at all; verdicts that had arrived by then are kept.
        """
        ask = self.template.pair
        asked = [text for a, b in pairs for text in ((None, None) if self._refuse(a, b) else (ask(a, b), ask(b, a)))]
        verdicts = np.array(self.asker.ask(asked, verdict), dtype=np.float64).reshape(-1, 2)
        return Preferences(forward=verdicts[:, 0], backward=1 - verdicts[:, 1])


class PointwiseJudge(_Judge):
    """Rates answers from 1 to 10."""

    def score(self, conversations: Sequence[Conversation]) -> Float[np.ndarray, " n"]:
        """Ratings [n] on the scale 1 to 10, higher is better; NaN where the reply gives none.

        Messages that are no conversation have no rating; the reasons are counted in `usage.refused`. Raises what the model
        raises when it can't be asked at all; ratings that had arrived by then are kept.
        """
        asked = [None if self._refuse(c) else self.template.single(c) for c in conversations]
        return np.array(self.asker.ask(asked, rating), dtype=np.float64)


def judge_of(
    settings: JudgeSettings, cache: Path, *, progress: OnProgress = lambda _done, _total: None
) -> PairwiseJudge | PointwiseJudge:
    """The judge; its template decides whether it compares pairs or rates answers.

    `cache` is the folder with the replies, one file per judge: whatever changes the judge changes the file's name, so that no
    reply that was paid for is ever written over. Raises RecipeError for a template that can't be used, MissingExtra without the
    openai package, UserError without a key, BackboneError for a local model that isn't there, StorageError when the folder can't
    be written.
    """
    template = template_of(settings.template, settings.template_file)
    completer = completer_of(settings)
    fingerprint = hashlib.sha256(f"{template.kind} {template.fingerprint} {completer.fingerprint}".encode()).hexdigest()[:16]
    model = settings.model or settings.local or ""
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{model[-60:]}-{template.name[:40]}").strip("-.")
    kept = Kept(cache / f"{stem}-{fingerprint}-{FORMAT}.jsonl", fingerprint)
    asker = Asker(completer, kept, Usage(settings.price_in, settings.price_out), progress)
    judge = PairwiseJudge if template.kind == "pairwise" else PointwiseJudge
    return judge(settings.name, f"{model} as judge ({template.name})", fingerprint, template, asker)


def completer_of(settings: JudgeSettings) -> Completer:
    """The model that the settings name, behind an endpoint or on this machine."""
    if settings.local is not None:
        return LocalModel(settings.local, max_tokens=settings.reply_tokens, **settings.model_dump(include=set(LOCAL)))
    return RemoteModel(settings.model or "", max_tokens=settings.reply_tokens, **settings.model_dump(include=set(REMOTE)))
