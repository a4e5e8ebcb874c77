"""Where results go: JSON on standard output, tables to the terminal, remarks to standard error."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from headwater.engine.plain import plain
from headwater.report.jsonl import json_text
from headwater.report.words import printable

if TYPE_CHECKING:
    from rich.console import Console


WIDE = 120  # columns where there is no terminal to ask


def warn(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


class Remarks(logging.Handler):
    """What the package logs, as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """One remark, one line."""
        warn(printable(" ".join(self.format(record).split())))


def emit(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json_text(plain(value), indent=1) + "\n")


def emit_lines(values: Iterable[Any]) -> None:
    """JSON Lines on standard output, each as soon as it is known."""
    for value in values:
        sys.stdout.write(json_text(plain(value)) + "\n")
        sys.stdout.flush()


def console() -> Console:
    """The terminal, or what standard output is connected to: lines of `WIDE` in a pipe."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:  # rich would end the program here, with status 1
            raise BrokenPipeError

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    return Output(highlight=False, soft_wrap=False, width=width)


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Two columns without lines: what, and how much."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    console().print(table)
