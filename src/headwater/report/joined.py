"""Several kinds of evidence as one table: for each kind its rank and score, never one number.

Words that stand in the output in the same order are set in quotation marks (« ») without colour and
in blue with it; those that carry influence are marked as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from headwater.answer.answer import Answer, Evidence
from headwater.report.words import printable

STYLES = {"copied": "magenta", "stated": "green", "shaped": "cyan", "nothing stands out": "yellow"}
SHORT = {"influence": "infl.", "verbatim": "verb.", "lexical": "lex.", "semantic": "sem."}
SPANS = 5  # told below the table
SAME = "bold blue"


def picture_line(answer: Answer) -> RenderableType:
    """What the answer comes down to, in its colour."""
    picture = answer.picture
    if picture is None:
        return Text()
    return Padding(Text(printable(picture.summary), style=STYLES.get(picture.kind, "")), (0, 1))


def joined_table(answer: Answer, texts: Sequence[RenderableType]) -> RenderableType:
    """The shown examples with their rank and score in each kind.

    Args:
        answer: with `kinds`. texts: each example's id and text, marked.
    """
    if not answer.proponents:
        return Text("no example has any evidence of these kinds", style="dim")
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="dim",
        expand=True,
    )
    table.add_column("", justify="right", style="dim", width=3)
    for kind in answer.kinds:
        table.add_column(SHORT[kind], justify="right", no_wrap=True, min_width=6)
    table.add_column("example", ratio=1, overflow="fold")
    for number, (item, text) in enumerate(zip(answer.proponents, texts, strict=True), 1):
        # What the first line names is shown in any case; its place is further down.
        cells: list[RenderableType] = ["..." if item.out_of_turn else str(number)]
        cells += [_cell(item, kind) for kind in answer.kinds]
        table.add_row(*cells, text)
    return table


def _cell(item: Evidence, kind: str) -> Text:
    """The rank, and below it the score."""
    place = item.kinds.get(kind)
    if place is None:
        return Text("-", style="dim")
    text = Text(f"{place.rank:,}", style="bold" if place.rank <= 3 else "")
    return text.append(f"\n{short_number(place.score)}", style="not bold dim")


def short_number(value: float) -> str:
    """Three digits, in at most seven characters: 0.0187, 22.3, 1.2k, -2e-05."""
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.0e}"
    return f"{value / 1e3:.3g}k" if abs(value) >= 1e3 else f"{value:.3g}"


def support_line(item: Evidence) -> Text:
    """How the example supports the output, and the words it shares."""
    line = Text(no_wrap=True, overflow="ellipsis")
    if item.support is not None and item.support != "none of these":
        line.append(item.support, style="yellow")
    if item.terms:
        said = ", ".join(f"{printable(term)} {score:.1f}" for term, score in item.terms[:4])
        line.append(("  " if line.plain else "") + f"words: {said}", style="dim")
    return line


def kind_lines(answer: Answer) -> Iterator[RenderableType]:
    """What each kind means, and the spans that stand in the corpus word for word."""
    if answer.spans:
        yield Text("\nword for word", style="bold")
        for span in answer.spans[:SPANS]:
            yield _span(span)
        if len(answer.spans) > SPANS:
            yield Text(f"  and {len(answer.spans) - SPANS} more", style="dim")
    yield Text()
    for kind, told in answer.kinds.items():
        name = SHORT[kind]
        unit = told.unit.partition(" (")[0].removeprefix(f"{told.title} ")
        measured = "" if unit == "score" else f", {unit}"
        said = f"{told.title}{measured}: {told.note}"
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=5)
        grid.add_column(overflow="fold")
        grid.add_row(Text(name, style="bold"), Text(said, style="dim"))
        yield grid


def _span(span: dict[str, Any]) -> Group:
    words = " ".join(printable(str(span["text"])).split())
    documents: list[dict[str, Any]] = span["documents"]
    names = ", ".join(printable(str(d["id"])) for d in documents[:3])
    more = f" and {len(documents) - 3} more" if len(documents) > 3 else ""
    tokens = max(part["tokens"] for part in span["parts"])
    joined = "" if len(span["parts"]) == 1 else f" (of {len(span['parts'])} matches)"
    times = "once" if span["count"] == 1 else f"{span['count']:,} times"
    figures = f"{tokens} tokens{joined}, {times}: "
    line = Text.assemble("  \u00ab", (words, SAME), "\u00bb ", (figures, "dim"))
    line.append(names + more, style="cyan")
    return Group(line)
