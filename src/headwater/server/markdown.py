"""An answer as Markdown, to paste into an issue or a note.

All of it is somebody's text and stands there as it is: no mark of it means anything. Bold are only
the words of an example that make it evidence; they are what is shown of a long one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwater.report.pieces import Range, joined, marks_of, pieces
from headwater.report.words import at_words
from headwater.server.visible import visible

if TYPE_CHECKING:
    from headwater.answer.answer import Answer, Evidence

SHOWN = 800  # characters of an example, of a prompt or of a completion
HEADING = 500
# What means something in Markdown: marks anywhere, links that need none, lists at the beginning.
_MARKS = re.compile(r"[\\`*_{}\[\]#|~$!@^]|:(?=//)|(?<=www)\.|^[-+=]", re.IGNORECASE)
_NUMBERED = re.compile(r"^(\d+)([.)])")


def escaped(text: str, most: int = SHOWN) -> str:
    """Text on one line of Markdown, as it is: no mark of it means anything."""
    line = " ".join(text.split())
    return _plain(line if len(line) <= most else f"{line[: most - 1]}…")


def _plain(line: str) -> str:
    marked = _NUMBERED.sub(r"\1\\\2", _MARKS.sub(r"\\\g<0>", visible(line)))
    return html.escape(marked, quote=False)


def passage(text: str, marks: Sequence[Range] = (), most: int = SHOWN) -> str:
    """A text on one line, marked words bold; of a long one what is around them, and how much not.

    Args:
        marks: characters [start, end), the most telling first.
    """
    bold = [one for mark in joined(marks) if (one := _word_ends(text, *mark)) is not None]
    told: list[str] = []
    at = 0
    for start, end in pieces(text, marks, most):
        told += [_left_out(start - at), _emphasised(text, start, end, bold)]
        at = end
    return " ".join(part for part in [*told, _left_out(len(text) - at)] if part)


def _ending(text: str) -> str:
    """A text on one line; of a long one its end."""
    start = 0 if len(text) <= SHOWN else at_words(text, len(text) - SHOWN, len(text))[0]
    return " ".join(part for part in (_left_out(start), _flat(text[start:]).strip()) if part)


def _left_out(count: int) -> str:
    return f"… ({count:,} characters left out) …" if count else ""


def _word_ends(text: str, start: int, end: int) -> Range | None:
    """A range without what is no letter or digit at its ends: Markdown makes no other bold."""
    while start < end and not text[start].isalnum():
        start += 1
    while end > start and not text[end - 1].isalnum():
        end -= 1
    return (start, end) if end > start else None


def _emphasised(text: str, start: int, end: int, bold: Sequence[Range]) -> str:
    """The characters [start, end), those in `bold` between two stars each side."""
    made, at = "", start
    for first, last in bold:
        inner = _word_ends(text, max(first, start), min(last, end))
        if inner is not None:
            made += _flat(text[at : inner[0]]) + f"**{_flat(text[inner[0] : inner[1]])}**"
            at = inner[1]
    return (made + _flat(text[at:end])).strip()


def _flat(text: str) -> str:
    """On one line and without marks; blanks at the ends stay, as one."""
    return _plain(re.sub(r"\s+", " ", text))


def markdown(answer: Answer) -> str:
    """An answer to paste into an issue or a note: the question, what it comes down to, examples."""
    found = answer.picture.summary if answer.picture is not None else answer.judgement.summary
    lines = [
        f"## Where it comes from: {escaped(answer.query, HEADING)}",
        "",
        escaped(found, 2000),
        "",
        f"Method: {escaped(answer.title)} ({escaped(answer.order())}); "
        f"{answer.examples:,} examples scored.",
    ]
    if answer.completion:
        said = answer.completion
        lines += ["", f"> {_ending(answer.prompt)} {passage(said, [(0, len(said))])}"]
    for head, items in (
        ("Examples that support it", answer.proponents),
        ("Examples that oppose it", answer.opponents),
    ):
        if items:
            told = [_item(answer, rank, one) for rank, one in enumerate(items, 1)]
            lines += ["", f"### {head}", "", *told]
    if answer.notes:
        lines += ["", "### Notes", "", *(f"- {escaped(note)}" for note in answer.notes)]
    command = answer.reproduce.get("command")
    if command:
        lines += ["", "### To get it again", "", *_fenced(command, "sh")]
    return "\n".join(lines) + "\n"


def _item(answer: Answer, number: int, item: Evidence) -> str:
    score = answer.score_of(item) or "no score"
    above = "" if item.percentile is None else f", above {item.percentile:.2f} % of all"
    told = f", {escaped(item.support)}" if item.support else ""
    copies = f", {len(item.duplicates)} more with this text" if item.duplicates else ""
    return (
        f"{number}. **{escaped(item.id, 200)}** ({score}{above}{told}{copies}): "
        f"{passage(item.text, marks_of(item))}"
    )


def _fenced(text: str, language: str) -> list[str]:
    """A block of code, its fence longer than any within."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", visible(text), fence]
