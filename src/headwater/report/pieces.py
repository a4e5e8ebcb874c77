"""The parts of a long text that are worth showing: those around its marks.

A training text may be a whole book. Its beginning says little about why it is evidence; the words
that are marked do, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.answer.answer import Evidence
from headwater.report.words import at_words, place, printable, strongest

NEAR = 40  # characters on either side of a mark, at least
WORTH = 60  # a gap of fewer characters is shown, not told

Range = tuple[int, int]


def marks_of(item: Evidence) -> list[Range]:
    """What is marked in an example, the most telling first.

    Words that stand in the output word for word, the longest run first; then those that carry most
    of the score.
    """
    text = printable(item.text)
    same = [(start, end) for start, end in item.spans if 0 <= start < end <= len(text)]
    same.sort(key=lambda one: (one[0] - one[1], one))
    sign = -1 if (item.score or 0) < 0 else 1
    told = strongest(text, place(text, [(printable(token), share) for token, share in item.tokens]))
    told = sorted((one for one in told if one.share * sign > 0), key=lambda one: -abs(one.share))
    return [*same, *((one.start, one.end) for one in told)]


def pieces(text: str, marks: Sequence[Range], most: int) -> list[Range]:
    """Ranges of `text` in order, of about `most` characters together.

    Args:
        marks: what to show, within the text, the most telling first; without any, the beginning is
            shown. Those that there is no room for are left out; of a very long one the beginning
            is shown.
    """
    if len(text) <= most:
        return [(0, len(text))]
    chosen: list[Range] = []
    room = most
    for start, end in marks:
        end = min(end, start + most // 2)
        cost = end - start + 2 * NEAR
        if cost <= room:
            chosen.append((start, end))
            room -= cost
    if not chosen:
        return [at_words(text, 0, most)]
    near = NEAR + room // (2 * len(chosen))
    wide = [(max(0, start - near), min(len(text), end + near)) for start, end in chosen]
    return joined([at_words(text, *one) for one in joined(wide, WORTH)])


def joined(ranges: Sequence[Range], gap: int = 0) -> list[Range]:
    """Ranges in order, those at most `gap` characters apart made one."""
    made: list[Range] = []
    for start, end in sorted(ranges):
        if made and start <= made[-1][1] + gap:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((start, end))
    return made
