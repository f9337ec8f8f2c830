"""Padded copies of answers: the same answer with words and marks around it that say nothing, to see which rewards pay for them.

In: an answer's text, a seed.  Out: the padded text, a function of both alone.

The pieces are neutral: openings that announce the answer, offers to go on, remarks that something has been said, lists of
nothing, and the marks of style-conscious answers. They are English, and share no run of three words with what an audit puts into
answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from armorm.draws import draw_of

OPENINGS: Sequence[str] = (
    "Your message has been read, and a reply to it is given in the lines that follow this one.",
    "Before the reply begins, a short word to say that it is about to begin.",
    "A request was made, which is taken up here, from its first word to its last.",
    "What was asked for is set out below, in the order in which it comes.",
)
"""Stand in front of an answer and announce it."""
REMARKS: Sequence[str] = (
    "To say once more what has been said: the reply stands in the lines further up.",
    "As the part before this one has already stated, it states what it states.",
    "The lines above were written in reply to the message that came before them.",
    "If any part of this is unclear, just write again and it can be put into other words.",
    "Should you wish to read more on this, a further message is all it takes.",
    "Another message can be sent at any time, today or on some other day.",
    "Here the reply comes to its close, behind everything that came before.",
    "Nothing further is added by these words, which only follow on from the ones before.",
)
"""Stand behind an answer and look back on it, or offer more."""
MARKS: Mapping[str, Sequence[str]] = {
    "markdown-headers": ("## The reply in full", "### Closing lines", "# Overview"),
    "list-items": ("- a first point\n- a second point\n- a third point", "1. one thing\n2. one more thing", "* this\n* that"),
    "bold-spans": ("**Please read the above.**", "These are the **closing** words of a **reply**."),
    "code-fences": ("```\n```", "~~~\n\n~~~"),
    "exclamation-marks": ("Thanks for reading!", "That was all of it!!", "So much for that!!!"),
    "emoji": ("🙂", "✨👍", "📌 🙂"),
}
"""What stands behind an answer to be seen, by the nuisance that counts it."""
MOST_REMARKS = 5


def pad(answer: str, *, seed: int) -> str:
    """The answer with an opening (every other one), some remarks and some of the marks around it, in an order of chance."""
    draw = draw_of("padding", str(seed), answer)
    front = [draw.choice(OPENINGS)] if draw.random() < 0.5 else []
    behind = draw.sample(REMARKS, draw.randint(1, MOST_REMARKS))
    behind += [draw.choice(pieces) for pieces in MARKS.values() if draw.random() < 1 / 3]
    draw.shuffle(behind)
    return "\n\n".join([*front, answer, *behind])
