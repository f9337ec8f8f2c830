"""An answer as prose: its sentences and what stands between them, its words; whether it is code, a list, English, a refusal.

In: a text.  Out: `Sentences`; yes or no.  Cost: one pass over the text at most; often its beginning decides.

Sentences end in marks (those of English, Chinese, Japanese, Arabic, Hindi and others) or with their line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

_STOP, _WIDE, _CLOSING = ".!?…", "。！？｡؟۔।॥։።", "\"'”’»)\\]」』）】》"
_BETWEEN = re.compile(
    rf"(?<=[{_STOP}])\s+|(?<=[{_STOP}][{_CLOSING}])\s+|(?<=[{_WIDE}])(?![{_WIDE}{_CLOSING}])\s*|(?<=[{_WIDE}][{_CLOSING}])\s*"
)
"""What parts two sentences of a line; behind a wide mark it may be nothing."""
_SHORTENED = re.compile(
    r"(?:^|[\s(*_])(?:\d{1,3}|[^\W\d_]|[Dd]r|[Mm]rs?|[Mm]s|[Pp]rof|St|vs|etc|e\.g|i\.e|cf|[Nn]o|[Ff]ig|approx)\.$"
)
"""A point behind it ends no sentence."""
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
"""A word; in scripts that put no space between them, a character."""
_BULLET = re.compile(r"[-*+•–]\s")
_GOES_ON = ",;:、，；：-–—([{（「『“„«/&+="
_REFUSES = re.compile(
    r"\b(?:i(?:'m| am) (?:(?:very|so|really) )?sorry|i (?:must |have to |will have to )?(?:apologi[sz]e|decline|refuse)"
    r"|i (?:can(?:'t|not| not)|won't|will not|do(?:n't| not) feel|am (?:un|not )able|'m (?:un|not )able)|i'm (?:un|not )able"
    r"|(?:as|i am|i'm)(?: just| only)? an? (?:ai|language model)|my (?:guidelines|programming|policy|policies)|against my)\b",
    re.IGNORECASE,
)
_FIRST_WORDS = 200
_FUNCTION_WORDS = re.compile(
    r"a|about|an|and|are|as|at|be|been|but|by|can|could|did|do|does|for|from|had|has|have|he|her|his|how|i|if|in|into|is|it|"
    r"its|more|my|no|not|of|on|one|or|our|should|so|some|than|that|the|their|them|then|there|these|they|this|to|up|us|was|we|"
    r"were|what|when|where|which|who|why|will|with|would|you|your"
)
_ENGLISH_SHARE = 0.15
"""Of function words: English has about 0.4, its relatives less than 0.1."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """A text as sentences; `gaps` stand before the first, between them and behind the last: there is one more of them."""

    texts: tuple[str, ...]
    gaps: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def joined(self, texts: Sequence[str]) -> str:
        """The text with others in the sentences' places."""
        return self.gaps[0] + "".join(text + gap for text, gap in zip(texts, self.gaps[1:], strict=True))


def sentences_of(text: str) -> Sentences:
    """The text's sentences."""
    texts, gaps = list[str](), [""]
    for line in text.splitlines(keepends=True):
        body = line.strip()
        if not body:
            gaps[-1] += line
            continue
        start = line.index(body)
        gaps[-1] += line[:start]
        for sentence, gap in _in_line(body):
            texts.append(sentence)
            gaps.append(gap)
        gaps[-1] += line[start + len(body) :]
    return Sentences(tuple(texts), tuple(gaps))


def _in_line(body: str) -> list[tuple[str, str]]:
    # A line's sentences, each with what stands behind it.
    found, start = list[tuple[str, str]](), 0
    for between in _BETWEEN.finditer(body):
        sentence = body[start : between.start()]
        if between.end() < len(body) and sentence and not _SHORTENED.search(sentence[-12:]):
            found.append((sentence, between[0]))
            start = between.end()
    return [*found, (body[start:], "")]


def has_words(text: str, count: int) -> bool:
    """Whether there are so many words or more."""
    return next(islice(WORD.finditer(text), count - 1, None), None) is not None


def is_unspaced(text: str) -> bool:
    """Whether the text begins in a script that puts no space between words."""
    return re.match(rf"\W*[{_UNSPACED}]", text) is not None


def is_code(text: str) -> bool:
    """Whether a block of code stands in the text."""
    return "```" in text or "~~~" in text


def is_bullets(text: str) -> bool:
    """Whether more than half of the lines are items of a list without numbers, which may stand in any order."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return 2 * sum(_BULLET.match(line) is not None for line in lines) > len(lines)


def is_finished(text: str) -> bool:
    """Whether the text ends as whole texts do: not in a letter, nor in a mark that something follows."""
    last = text.rstrip()[-1:]
    return bool(last) and not last.isalpha() and last not in _GOES_ON


def is_english(text: str) -> bool:
    """Whether the beginning reads as English: ASCII letters, and the little words among them."""
    words = [word[0].lower() for word in islice(WORD.finditer(text), _FIRST_WORDS)]
    known = sum(_FUNCTION_WORDS.fullmatch(word) is not None for word in words)
    foreign = sum(not word.isascii() for word in words)
    return known >= 1 and known >= _ENGLISH_SHARE * len(words) and foreign <= 0.1 * len(words)


def is_refusal(text: str) -> bool:
    """Whether the text begins as refusals of language models do."""
    return _REFUSES.search(text[:200].replace("’", "'")) is not None
