"""A board in a terminal: methods down, figures across, in as many tables as the width asks for.

The best figure of a column is bold, those whose interval holds 0 are dim. What a method was given
beyond a model and a corpus is marked beside its name, reasons for missing figures stand below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headwater.evaluation.board import Board, Finding, Row
from headwater.evaluation.estimate import Estimate
from headwater.report.figures import size
from headwater.report.words import printable

MARKS = "¹²³⁴⁵⁶⁷⁸⁹"
COSTS = {
    "seconds": "of scoring all queries, on one thread, the index's features included",
    "trainings": "the same, relative to one training of the model",
    "memory": "peak above what the process held before",
    "disk": "that the index grew by",
}
FIGURE = 24  # columns that a figure with its interval takes
NAME = 26
LEAST = 0.01  # figures below are written by their leading digits


def board_report(found: Board, width: int = 120) -> RenderableType:
    """The board; print it with a `rich.console.Console` of this width."""
    marks, reasons = given_marks(found), reason_marks(found)
    head = Text(f"{found.preset}", style="bold")
    head.append(f"  {len(found.rows)} methods, {len(found.columns)} figures", style="dim")
    parts: list[RenderableType] = [head]
    columns = list(found.columns)
    each = max(1, (width - NAME) // FIGURE)
    for start in range(0, max(1, len(columns)), each):
        parts.append(_table(found, columns[start : start + each], marks, reasons))
    parts += [_costs(found, marks), Text()]
    parts += [_finding(one) for one in found.findings]
    for mark, told in [(m, f"is given {g}") for g, m in marks.items()]:
        parts.append(Text(f"{mark} {printable(told)}", style="dim"))
    parts += [Text(f"{mark} {printable(why)}", style="dim") for why, mark in reasons.items()]
    parts += [Text(f"note: {printable(note)}", style="dim") for note in notes(found)]
    return Group(*parts)


def notes(found: Board) -> list[str]:
    """What a reader of the figures should know."""
    return [
        *found.notes,
        "Intervals: 95 %, from drawing what a figure is a mean over again (queries; trials).",
    ]


def given_marks(found: Board) -> dict[str, str]:
    """What methods were given beyond a model and a corpus, each with its mark."""
    told = list(dict.fromkeys(", ".join(row.given) for row in found.rows if row.given))
    return {given: MARKS[place % len(MARKS)] for place, given in enumerate(told)}


def reason_marks(found: Board) -> dict[str, str]:
    """Why figures are missing, each reason with a letter."""
    told = dict.fromkeys(
        figure for row in found.rows for figure in row.figures.values() if isinstance(figure, str)
    )
    return {why: f"({chr(97 + place % 26)})" for place, why in enumerate(told)}


def best_of(found: Board, column: str) -> float | None:
    """The best figure of a column: the greatest, unless its sentence says otherwise."""
    values = [row.figures.get(column) for row in found.rows]
    known = [one.value for one in values if isinstance(one, Estimate)]
    told = found.columns.get(column, "")
    if told.endswith(("lower is better", "fewer is better")):
        return min(known, default=None)
    if told.endswith("1 is best"):
        return min(known, key=lambda value: abs(value - 1), default=None)
    return max(known, default=None)


def figure_text(one: Estimate) -> str:
    """Such as 0.412 (0.380 to 0.441); fewer places from 10 on, significant ones below 0.01."""
    most = max(abs(one.value), abs(one.low), abs(one.high))
    form = ".2g" if 0 < most < LEAST else ".3f" if most < 10 else ".1f"
    return f"{one.value:{form}} ({one.low:{form}} to {one.high:{form}})"


def _trainings(found: Board, row: Row) -> str:
    cost = found.trainings(row)
    if cost is None:
        return "-"
    return f"{cost:.2g}" if cost < 10 else f"{cost:.0f}"


def name_text(row: Row, marks: Mapping[str, str]) -> str:
    """The method's title with its mark."""
    mark = marks.get(", ".join(row.given), "")
    return f"{printable(row.title)}{' ' if mark else ''}{mark}"


def _table(
    found: Board, columns: Sequence[str], marks: Mapping[str, str], reasons: Mapping[str, str]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("method", overflow="fold", min_width=16)
    for column in columns:
        table.add_column(printable(column), overflow="fold")
    best = {column: best_of(found, column) for column in columns}
    for row in found.rows:
        cells: list[Text] = []
        for column in columns:
            one = row.figures.get(column, "not measured")
            if isinstance(one, str):
                cells.append(Text(reasons.get(one, one), style="dim"))
                continue
            style = "bold" if one.value == best[column] else ""
            cells.append(Text(figure_text(one), style=style or _certain(one)))
        table.add_row(Text(name_text(row, marks)), *cells)
    return table


def _certain(one: Estimate) -> str:
    return "dim" if one.low <= 0 <= one.high else ""


def _costs(found: Board, marks: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("method", overflow="fold", min_width=16)
    for name in COSTS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(Text(name_text(row, marks)), *cost_texts(found, row))
    return table


def cost_texts(found: Board, row: Row) -> list[str]:
    """The row's costs in the order of `COSTS`."""
    if row.cost is None:
        return ["-"] * len(COSTS)
    seconds = f"{row.cost.seconds:.1f}"
    return [seconds, _trainings(found, row), size(row.cost.memory), size(row.cost.disk)]


def _finding(one: Finding) -> Text:
    word, style = verdict(one)
    text = Text(f"{word}: ", style=style)
    return text.append(f"{printable(one.claim)}  ").append(printable(one.figures), style="dim")


def verdict(one: Finding) -> tuple[str, str]:
    """Whether a claim holds, in words, and how it is shown."""
    if one.holds is None:
        return "cannot be told", "yellow"
    return ("holds", "green") if one.holds else ("does not hold", "red")
