"""A board in Markdown: one table of all methods, figures and costs, and the recipe that made it."""

from __future__ import annotations

import json
from typing import Any

from headwater.evaluation.board import Board
from headwater.evaluation.estimate import Estimate
from headwater.report.board import (
    COSTS,
    best_of,
    cost_texts,
    figure_text,
    given_marks,
    name_text,
    notes,
    reason_marks,
    verdict,
)
from headwater.report.words import printable


def board_markdown(found: Board, picture: str | None = None) -> str:
    """The board as Markdown.

    Args:
        picture: name of the chart's file, to be shown in it.
    """
    parts = [f"# Board: {found.preset}", ""]
    if picture is not None:
        parts += [f"![{found.headline} against cost]({picture})", ""]
    parts += [board_summary(found), "", "## Figures", ""]
    for name, told in {**found.columns, **COSTS}.items():
        parts.append(f"- **{_plain(name)}**: {_plain(told)}")
    parts += ["", "## Recipe", "", "```json", _json(found.recipe), "```", ""]
    return "\n".join(parts)


def board_summary(found: Board) -> str:
    """The table, what it shows, and the notes to it."""
    marks = given_marks(found)
    parts = [*_table(found), ""]
    parts += [f"- {mark} is given {_plain(given)}" for given, mark in marks.items()]
    parts += [f"- {mark} {_plain(why)}" for why, mark in reason_marks(found).items()]
    parts += ["", *[f"- {_plain(note)}" for note in notes(found)]]
    if found.training_seconds is not None:
        parts.append(f"- One training took {found.training_seconds:.1f} s on one thread.")
    if found.findings:
        parts += ["", "What it shows:", ""]
        for one in found.findings:
            parts.append(f"- **{verdict(one)[0]}:** {_plain(one.claim)}. {_plain(one.figures)}")
    return "\n".join(parts)


def _table(found: Board) -> list[str]:
    marks, reasons = given_marks(found), reason_marks(found)
    heads = ["method", *found.columns, *COSTS]
    lines = [
        "| " + " | ".join(_plain(head) for head in heads) + " |",
        "|---|" + "---|" * len(found.columns) + "---:|" * len(COSTS),
    ]
    best = {column: best_of(found, column) for column in found.columns}
    for row in found.rows:
        cells = [_plain(name_text(row, marks))]
        for column in found.columns:
            one = row.figures.get(column, "not measured")
            if isinstance(one, Estimate):
                told = figure_text(one)
                cells.append(f"**{told}**" if one.value == best[column] else told)
            else:
                cells.append(reasons.get(one, one))
        lines.append("| " + " | ".join([*cells, *cost_texts(found, row)]) + " |")
    return lines


def _plain(text: str) -> str:
    """Without what Markdown would take for a table's line or a tag."""
    one_line = " ".join(printable(text).split())
    return one_line.replace("|", "\\|").replace("<", "&lt;")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)
