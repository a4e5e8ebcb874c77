"""Methods side by side on retrieval: each number with its interval, and the paired differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headwater.evaluation.estimate import Estimate
from headwater.evaluation.reranking import METRICS, Compared, Comparison
from headwater.report.words import printable

INFLATED = (
    "Every gold document is among a query's candidates, so these numbers are higher than those of "
    "open retrieval: compare them with each other only."
)


def retrieval_report(found: Comparison) -> RenderableType:
    """The comparison; print it with a `rich.console.Console`."""
    parts: list[RenderableType] = [_head(found), _table(found, found.rows, _own)]
    if len(found.rows) > 1:
        title = printable(found.rows[0].title)
        parts.append(Text(f"\ndifference to {title}, paired by query", style="bold"))
        parts.append(_table(found, found.rows[1:], _difference))
    parts.append(Text())
    parts += [_given(row) for row in found.rows]
    parts += [Text(f"note: {note}", style="dim") for note in notes(found)]
    return Group(*parts)


def notes(found: Comparison) -> list[str]:
    """What a reader of the numbers should know."""
    made = ["Intervals: 95 %, from drawing the queries again."]
    if found.protocol == "ftrace":
        made.append(INFLATED)
    else:
        made.append(f"A gold document below rank {found.depth:,} counts as not found.")
    if found.left_out:
        made.append(f"{found.left_out:,} queries left out: no gold document is in the index.")
    if found.absent:
        made.append(f"{found.absent:,} gold documents are not in the index and do not count.")
    return made


def comparison_record(found: Comparison) -> dict[str, Any]:
    """The comparison in plain values, with the notes."""
    return asdict(found) | {"notes": notes(found)}


def _head(found: Comparison) -> Text:
    if found.protocol == "ftrace":
        what = f"FTRACE reranking, {found.candidates or 0:,.0f} candidates a query of"
    else:
        what = f"open retrieval, the first {found.depth:,} of"
    text = Text(f"{found.queries:,} queries", style="bold")
    return text.append(f"  {what} {found.examples:,} examples", style="dim")


def _table(
    found: Comparison, rows: Sequence[Compared], value: Callable[[Compared, str], Estimate]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("method", overflow="fold")
    for name in ("MRR", f"success@{found.k}", f"recall@{found.k}"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        cells = [Text(_figures(value(row, metric), value is _difference)) for metric in METRICS]
        table.add_row(Text(printable(row.title)), *cells)
    return table


def _own(row: Compared, metric: str) -> Estimate:
    return getattr(row.result, metric)


def _difference(row: Compared, metric: str) -> Estimate:
    return (row.difference or {})[metric]


def _figures(one: Estimate, signed: bool) -> str:
    if not signed:
        return str(one)
    return f"{one.value:+.2f} ({one.low:+.2f}, {one.high:+.2f})"


def _given(row: Compared) -> Text:
    text = Text(printable(row.title), style="bold")
    return text.append(f" is given: {printable(row.given)} ({row.seconds:.1f} s)", style="dim")
