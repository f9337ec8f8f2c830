"""A judge from its settings: template, model, and the file of its replies.

In: `JudgeSettings`, a folder.  Out: a `PairwiseJudge` or a `PointwiseJudge`.  Cost: for a local model a hash of its files;
it is loaded when it is asked.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from armorm.judge_settings import LOCAL, REMOTE, JudgeSettings
from armorm.kept import FORMAT, Kept
from armorm.rivals.judge.asking import Asker, OnProgress
from armorm.rivals.judge.completing import Completer
from armorm.rivals.judge.judges import PairwiseJudge, PointwiseJudge
from armorm.rivals.judge.local import LocalModel
from armorm.rivals.judge.remote import RemoteModel
from armorm.rivals.judge.template import template_of
from armorm.rivals.judge.usage import Usage


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
