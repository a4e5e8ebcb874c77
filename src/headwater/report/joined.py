"""Several kinds of evidence as one table: a column of ranks for each kind, never one number.

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
    """The shown examples with their rank in each kind.

    Args:
        answer: with `kinds`. texts: each example's id and text, marked.
    """
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", expand=True
    )
    table.add_column("", justify="right", style="dim", width=3)
    for kind in answer.kinds:
        table.add_column(SHORT[kind], justify="right", no_wrap=True, min_width=5)
    table.add_column("example", ratio=1, overflow="fold")
    for number, (item, text) in enumerate(zip(answer.proponents, texts, strict=True), 1):
        cells: list[RenderableType] = [str(number)]
        cells += [_rank(item, kind) for kind in answer.kinds]
        table.add_row(*cells, text)
    return table


def _rank(item: Evidence, kind: str) -> Text:
    place = item.kinds.get(kind)
    if place is None:
        return Text("-", style="dim")
    return Text(f"{place.rank:,}", style="bold" if place.rank <= 3 else "")


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
        line = Text.assemble((f"{name:<6}", "bold"), (f"{told.title}: {told.note}", "dim"))
        yield line


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
