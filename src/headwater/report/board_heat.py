"""A board whose rows are cells of a grid, as heat maps: one for each figure that is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.evaluation.estimate import Estimate
from headwater.report.words import printable

if TYPE_CHECKING:
    from headwater.evaluation.board import Board


def heat(made: Any, found: Board, grid: Any, name: str, *, ink: str, dim: str, ground: str) -> None:
    """Draw the maps into a figure.

    Args:
        grid: {"rows": labels, "columns": labels, "cells": names of the board's rows as a table,
            "figures": columns of the board that are drawn}.
        name: of the board. ink, dim, ground: colours.
    """
    import numpy as np

    known = {row.name: row.figures for row in found.rows}
    count = len(grid["figures"])
    for number, column in enumerate(grid["figures"]):
        axes = made.add_subplot(1, count, number + 1)
        axes.set_facecolor(ground)
        cells = [[known[cell].get(column) for cell in line] for line in grid["cells"]]
        values = np.array(
            [[c.value if isinstance(c, Estimate) else np.nan for c in line] for line in cells]
        )
        axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                told = "-" if np.isnan(value) else f"{value:.2f}"
                shade = "#111111" if value > 0.6 else "#ffffff"
                axes.text(x, y, told, ha="center", va="center", color=shade, fontsize=11)
        axes.set_xticks(range(len(grid["columns"])), grid["columns"], color=dim, fontsize=9)
        labels = grid["rows"] if number == 0 else [""] * len(grid["rows"])
        axes.set_yticks(range(len(grid["rows"])), labels, color=dim, fontsize=9)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_title(printable(column), color=ink, fontsize=10.5)
    made.suptitle(name, color=ink, fontsize=13, fontweight="bold", x=0.02,
                  ha="left")  # fmt: skip
    made.subplots_adjust(left=0.17, right=0.98, top=0.85, bottom=0.1, wspace=0.08)
