"""A ranking as a terminal table: both ends of it, and where the cut is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


def ranking_table(rows: Sequence[dict[str, Any]], by: str | None, ends: int, unit: str) -> Table:
    """The first and last `ends` of the rows (rank, name, score in `unit`, examples, keep)."""
    marked = bool(rows) and "keep" in rows[0]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("", justify="right", style="dim")
    table.add_column(by or "example", overflow="fold")
    table.add_column(f"score ({unit})", justify="right")
    if by is not None:
        table.add_column("examples", justify="right")
    if marked:
        table.add_column("keep")
    hidden = len(rows) - 2 * ends
    for place, row in enumerate(rows):
        if hidden > 0 and ends <= place < len(rows) - ends:
            if place == ends:
                table.add_row("", Text(f"... {hidden:,} more ...", style="dim"))
            continue
        cells = [f"{row['rank']:,}", Text(str(row["name"])), score_text(row["score"])]
        if by is not None:
            cells.append(f"{row['examples']:,}")
        if marked:
            cells.append("keep" if row["keep"] else Text("drop", style="red"))
        table.add_row(*cells)
    return table


def score_text(value: float, digits: int = 4) -> Text:
    """A signed number in the colour of its sign."""
    return Text(f"{value:+#.{digits}g}", style="green" if value > 0 else "red" if value < 0 else "")
