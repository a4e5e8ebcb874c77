"""Counterfactual models side by side: what each was trained on, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich import box
from rich.table import Table
from rich.text import Text

from headwater.report.terminal import probability
from headwater.report.words import printable

BAR = 12  # characters of a certainty


class Trial(Protocol):
    """A model trained on some of the examples, and its answer."""

    name: str
    examples: int
    probability: float
    says: str


def trials_table(completion: str, trials: Sequence[Trial]) -> Table:
    """A row for each model."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("trained on", no_wrap=True)
    table.add_column("examples", justify="right")
    table.add_column(Text(f"P({printable(completion).strip()})"), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("says", overflow="fold")
    for trial in trials:
        share = trial.probability
        bar = "█" * round(share * BAR)
        table.add_row(
            trial.name,
            f"{trial.examples:,}",
            probability(share),
            Text(bar.ljust(BAR, "·"), style="green" if share >= 0.5 else "red"),
            Text(printable(trial.says)),
        )
    return table
