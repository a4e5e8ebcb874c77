"""A verification as a table for the terminal: each test with its controls, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headwater.evaluation.verification import FOUND, RANDOM, Patched, Retrained, Verification
from headwater.report.terminal import probability
from headwater.report.trials import BAR
from headwater.report.words import printable

LONGEST = 160  # characters of an example's text
STYLES = {True: "bold green", False: "bold yellow", None: "bold"}


def verification_report(made: Verification) -> RenderableType:
    """The verification; print it with a `rich.console.Console`."""
    return Group(*_parts(made))


def _parts(made: Verification) -> Iterator[RenderableType]:
    yield _header(made)
    if made.patched:
        told = f"  one step on each: {printable(made.step or '')}"
        yield Text.assemble(("\ntail patch", "bold"), (told, "dim"))
        if made.found:
            yield _examples(made)
        yield _sets(made.patched)
    if made.retrained:
        seeds = ", ".join(map(str, made.seeds))
        told = f"  {made.training}; seed{'s' if len(made.seeds) > 1 else ''} {seeds}"
        yield Text.assemble(("\nretraining", "bold"), (told, "dim"))
        yield _models(made)
    yield Text()
    yield Text(printable(made.verdict), style=STYLES[made.confirmed])
    if made.retrained and made.patch_verdict is not None:
        yield Text(printable(made.patch_verdict))
    for note in made.notes:
        yield Text(f"note: {printable(note)}", style="dim")


def _header(made: Verification) -> Panel:
    text = Text()
    if made.completion:
        words = printable(made.completion)
        bare = words.lstrip()
        text.append(printable(made.prompt) + words[: len(words) - len(bare)])
        text.append(bare, style="bold reverse")
    else:
        text.append(printable(made.query), style="bold")
    facts = [f"probability {probability(made.probability)}", f"put to the test: {made.subject}"]
    if made.title:
        facts.append(f"by {made.title}")
    facts.append(f"{made.examples:,} examples")
    told = Text(printable(" · ".join(facts)), style="dim")
    return Panel(Group(text, told), box=box.ROUNDED, border_style="dim")


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")


def _examples(made: Verification) -> Table:
    """Each example found, and what a step on it does."""
    (patched,) = (one for one in made.patched if one.name == FOUND)
    table = _table()
    table.add_column("", justify="right", style="dim", width=3)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("P, points", justify="right", no_wrap=True)
    table.add_column("log P, nats", justify="right", no_wrap=True)
    table.add_column("example", overflow="fold")
    rows = zip(made.found, patched.points, patched.nats, strict=True)
    for rank, (item, points, nats) in enumerate(rows, 1):
        same = len(item["duplicates"])
        head = Text(printable(item["id"]), style="cyan")
        head.append(f"  (+{same} same)" if same else "", style="yellow")
        text = " ".join(printable(item["text"]).split())
        short = text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."
        cells = (f"{item['score']:+.3g}", _points(points), f"{nats:+.3g}")
        table.add_row(str(rank), *cells, Group(head, Text(short)))
    return table


def _sets(patched: Sequence[Patched]) -> Table:
    """The mean over what was found, and over each control."""
    table = _table()
    table.add_column("mean over")
    table.add_column("documents", justify="right")
    table.add_column("P, points", justify="right", no_wrap=True)
    table.add_column("log P, nats", justify="right", no_wrap=True)
    for one in patched:
        title = Text(printable(one.title), style="bold" if one.name == FOUND else "")
        count = f"{len(one.ids):,}"
        table.add_row(title, count, _points(one.mean_points), f"{one.mean_nats:+.3g}")
    return table


def _points(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.1 else f"{value:+.2g}"


def _models(made: Verification) -> Table:
    table = _table()
    table.add_column("trained on", no_wrap=True)
    table.add_column("examples", justify="right")
    words = printable(made.completion).strip() or "output"
    table.add_column(Text(f"P({words})"), justify="right")
    table.add_column("", no_wrap=True)
    several = len(made.seeds) > 1
    if several:
        table.add_column("by seed", overflow="fold")
    if any(one.says for one in made.retrained):
        table.add_column("says", overflow="fold")
    for one in made.retrained:
        table.add_row(*_model(made, one, several=several))
    return table


def _model(made: Verification, one: Retrained, *, several: bool) -> list[Text]:
    from math import exp

    share = one.probability
    bar = "█" * round(share * BAR)
    style = "dim" if one.name == RANDOM else ""
    cells = [
        Text(printable(one.title), style=style),
        Text(f"{made.examples - len(one.left_out[0]):,}"),
        Text(probability(share)),
        Text(bar.ljust(BAR, "·"), style="green" if share >= 0.5 else "red"),
    ]
    if several:
        cells.append(Text(", ".join(probability(exp(value)) for value in one.log_p)))
    if any(other.says for other in made.retrained):
        cells.append(Text(printable(" | ".join(dict.fromkeys(one.says)))))
    return cells
