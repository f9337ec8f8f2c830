"""What a judge is asked: a template, a conversation and one or two answers make a text.

In: the name of a template of this package or a file, conversations.  Out: `Template`, and the texts it makes.
Cost: a hash of the texts.

Templates are versioned text files; a text that changes gets a new number. Whatever an answer holds stays inside its lines: these
carry a mark that is computed from the texts and occurs in none of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from armorm.conversation import Conversation, split_answer, text_of, written_out
from armorm.errors import ConversationError, RecipeError
from armorm.judge_settings import TEMPLATES
from armorm.small_files import read_text

TemplateKind = Literal["pairwise", "pointwise"]
NEEDED: Mapping[TemplateKind, frozenset[str]] = {
    "pairwise": frozenset({"context", "answer_a", "answer_b"}),
    "pointwise": frozenset({"context", "answer"}),
}
_PLACEHOLDER = re.compile(r"\{(context|answer_a|answer_b|answer|mark)\}")


@dataclass(frozen=True)
class Template:
    """A text with placeholders. `kind` says whether it asks for a verdict on two answers or for a rating of one."""

    name: str
    text: str
    kind: TemplateKind

    @property
    def fingerprint(self) -> str:
        """Its name, which holds the version, and a hash of its text."""
        return f"{self.name} {hashlib.sha256(self.text.encode()).hexdigest()[:16]}"

    def pair(self, first: Conversation, second: Conversation) -> str:
        """Asks which answer is better, `first`'s shown as A. Raises ConversationError when they answer different prompts."""
        (context, one), (other_context, other) = (split_answer(c, "trajectory") for c in (first, second))
        if context != other_context:
            raise ConversationError("the two conversations of a pair differ before their answers: give two answers to one prompt")
        return self._fill({"context": _readable(context), "answer_a": text_of(one), "answer_b": text_of(other)})

    def single(self, conversation: Conversation) -> str:
        """Asks for a rating of what follows the user's last turn."""
        context, answer = split_answer(conversation, "trajectory")
        return self._fill({"context": _readable(context), "answer": text_of(answer)})

    def _fill(self, texts: Mapping[str, str]) -> str:
        # In one pass: a placeholder inside an answer stays the letters it is.
        values = {name: text.strip() for name, text in texts.items()}
        values["mark"] = _mark(values.values())
        return _PLACEHOLDER.sub(lambda found: values[found[1]], self.text)


def template_of(name: str, file: Path | None = None) -> Template:
    """A template of this package by name, or one's own `file` (then `name` is the file's).

    Raises RecipeError for a name that isn't there, a file that can't be read, and a text that lacks placeholders.
    """
    if file is None:
        if name not in TEMPLATES:
            raise RecipeError(f"template: no {name!r}; the package's own are {', '.join(TEMPLATES)}; or name a text file")
        text = files("armorm.rivals.judge").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")
        return Template(name, text.strip(), _kind_of(name, text))
    text = read_text(file, "template", remedy="give the path of a text file as the template")
    return Template(file.stem, text.strip(), _kind_of(str(file), text))


def _kind_of(where: str, text: str) -> TemplateKind:
    there = frozenset(_PLACEHOLDER.findall(text)) - {"mark"}
    for kind, needed in NEEDED.items():
        if there == needed:
            return kind
    raise RecipeError(
        f"template {where} has the placeholders {', '.join(sorted(there)) or 'none'}: give it {{context}}, {{answer_a}} and "
        "{answer_b} for verdicts on pairs, or {context} and {answer} for ratings; {mark} besides is welcome"
    )


def _readable(context: Conversation) -> str:
    # One question is shown as it is; of more turns, each says who speaks.
    if len(context) == 1:
        return written_out(context[0]).strip()
    return "\n\n".join(f"[{m['role']}]\n{written_out(m).strip()}" for m in context)


def _mark(texts: Iterable[str]) -> str:
    # The same in both orders of a pair, so that nothing but the order differs.
    texts = sorted(texts)
    mark = hashlib.sha256(repr(texts).encode("utf-8", "replace")).hexdigest()
    while any(mark[:8] in text for text in texts):
        mark = hashlib.sha256(mark.encode()).hexdigest()
    return mark[:8]
