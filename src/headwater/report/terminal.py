"""An Answer as a table for the terminal, readable at 80 columns and without colour.

Where there is colour, words that carry the score are underlined green and words against it red;
where there is none (a pipe, NO_COLOR) they stand in [square] and {curly} brackets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headwater.answer.answer import Answer, Evidence
from headwater.report.joined import SAME, joined_table, kind_lines, picture_line, support_line
from headwater.report.pieces import joined
from headwater.report.ranking import score_text
from headwater.report.words import Mark, excerpt, place, printable, strongest

LONGEST = 320  # characters of an example's text
GROUPS = 5  # of each metadata column, at either end
PARTS = 4  # of a completion's tokens, the score for each
COLUMNS = 3  # metadata values beside an example's id
FOR, AGAINST = "bold green underline", "red underline"


def render(answer: Answer) -> RenderableType:
    """The whole answer; print it with a `rich.console.Console`."""
    return _Rendered(answer)


def show(answer: Answer, console: Console) -> None:
    """Print the answer; the command that repeats it stands on a line of its own, to be copied."""
    console.print(_Rendered(answer, again=False))
    for line in _again(answer):
        console.print(line, soft_wrap=True)


@dataclass
class _Rendered:
    answer: Answer
    again: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = console.color_system is None or console.no_color
        yield from _parts(self.answer, plain=plain)
        if self.again:
            yield from _again(self.answer)


def _parts(answer: Answer, *, plain: bool) -> Iterator[RenderableType]:
    yield _header(answer)
    if answer.picture is not None:
        yield picture_line(answer)
    if answer.picture is None or answer.method:
        yield _judgement(answer)
    sides = [("opposes", "without these the words would be more likely", answer.opponents, -1)]
    if answer.kinds:
        texts = [_joined_example(item, plain=plain) for item in answer.proponents]
        of = "" if len(answer.kinds) == 1 else "of each kind "
        told = f"  {answer.order()}; {of}its rank and score"
        told = told if answer.proponents else ""
        yield Text.assemble(("\nevidence", "bold"), (told, "dim"))
        yield joined_table(answer, texts)
    else:
        meaning = "without these the words would be less likely"
        sides.insert(0, ("supports", meaning, answer.proponents, 1))
    for name, meaning, items, sign in sides:
        # With few examples either list reaches into the other's half.
        kept = [item for item in items if (item.score or 0.0) * sign > 0]
        if kept:
            yield Text.assemble((f"\n{name}", "bold"), (f"  {meaning}", "dim"))
            yield _evidence_table(answer, kept, plain=plain)
    for column, totals in answer.groups.items():
        yield _totals(column, totals)
    if answer.kinds:
        yield from kind_lines(answer)
    yield Text()
    legend = _legend(answer, plain=plain)
    if legend.plain:
        yield legend
    for note in answer.notes:
        yield Text(f"note: {printable(note)}", style="dim")


def _again(answer: Answer) -> Iterator[Text]:
    if "command" in answer.reproduce:
        yield Text.assemble(("again: ", "dim"), printable(answer.reproduce["command"]))
    if "left_out" in answer.reproduce:
        told = f"(without {answer.reproduce['left_out']}, which a command line cannot say)"
        yield Text(printable(told), style="dim")


def _header(answer: Answer) -> Panel:
    query = Text()
    if answer.completion:
        words = printable(answer.completion)
        bare = words.lstrip()
        query.append(printable(answer.prompt) + words[: len(words) - len(bare)])
        query.append(bare, style="bold reverse")
        if answer.instead_of is not None:
            query.append(f"   instead of {printable(repr(answer.instead_of))}", style="dim")
    else:
        query.append(printable(answer.query), style="bold")
    facts: list[str] = []
    if answer.probability is not None:
        facts.append(f"probability {probability(answer.probability)}")
    facts.append(answer.title)
    if not answer.kinds:
        facts.append(answer.order())
    facts.append(_how_many(answer))
    title = None if answer.name is None else Text(printable(answer.name))
    body = Group(query, Text(" · ".join(facts), style="dim"))
    return Panel(body, box=box.ROUNDED, title=title, title_align="left", border_style="dim")


def _how_many(answer: Answer) -> str:
    if answer.candidates_of is None:
        return f"{answer.examples:,} examples"
    candidates = "candidate" if answer.examples == 1 else "candidates"
    return f"influence of {answer.examples:,} {candidates} of {answer.candidates_of:,} examples"


def probability(value: float) -> str:
    """A probability with the digits that say something: 97.5%, 0.031%."""
    if value < 1e-4:
        return "< 0.01%"
    return f"{value:.1%}" if value >= 0.1 else f"{value * 100:.2g}%"


def _judgement(answer: Answer) -> Padding:
    styles = {True: "green", False: "yellow", None: "dim"}
    said = answer.judgement.summary
    if answer.picture is not None:  # one of several verdicts
        said = f"By influence, {said[0].lower()}{said[1:]}"
    text = Text(said, style=styles[answer.judgement.stands_out])
    return Padding(text, (0, 1))


def _evidence_table(answer: Answer, items: Sequence[Evidence], *, plain: bool) -> Table:
    specific = any(item.specificity is not None for item in items)
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", expand=True
    )
    table.add_column("", justify="right", style="dim", width=3)
    # Fixed widths, so that both sides stand in the same columns.
    table.add_column("score", justify="right", no_wrap=True, min_width=8)
    table.add_column("above", justify="right", no_wrap=True, min_width=6)
    if specific:
        table.add_column("specific", justify="right", no_wrap=True)
    table.add_column("example", ratio=1, overflow="fold")
    for rank, item in enumerate(items, 1):
        cells: list[RenderableType] = [str(rank), score_text(item.score or 0.0)]
        cells.append(_share(item.percentile or 0.0))
        if specific:
            cells.append("-" if item.specificity is None else f"{item.specificity:.0f}%")
        table.add_row(*cells, _example(answer, item, plain=plain))
    return table


def _share(percent: float) -> str:
    """Two decimals near the ends, where they matter."""
    return f"{percent:.2f}%" if percent > 99 or percent < 1 else f"{percent:.1f}%"


def _example(answer: Answer, item: Evidence, *, plain: bool) -> Group:
    lines: list[RenderableType] = [_head(item), marked(item, plain=plain)]
    if len(item.by_target) > 1 and len(item.by_target) == len(answer.target):
        lines.append(_by_target(answer.target, item.by_target))
    return Group(*lines, *_uncertain(item))


def _uncertain(item: Evidence) -> Iterator[Text]:
    """How far its score and rank go."""
    for one in item.spreads:
        (low, high), (first, last) = one.score, one.rank
        ranks = f"rank {first:,}" if first == last else f"rank {first:,} to {last:,}"
        text = Text(f"over {one.count} {one.over} ", style="dim")
        text.append_text(score_text(low, digits=2)).append(" to ", style="dim")
        yield text.append_text(score_text(high, digits=2)).append(f", {ranks}", style="dim")


def _head(item: Evidence) -> Text:
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(printable(item.id), style="cyan")
    if item.duplicates:
        head.append(f"  (+{len(item.duplicates)} same)", style="yellow")
    if item.out_of_turn:
        head.append("  (further down; named above)", style="dim")
    values = [f"{k}={v}" for k, v in item.metadata.items() if _short(v)]
    if values:
        head.append("  " + printable(" ".join(values[:COLUMNS])), style="dim")
    return head


def _joined_example(item: Evidence, *, plain: bool) -> Group:
    lines: list[RenderableType] = [_head(item), marked(item, plain=plain)]
    told = support_line(item)
    return Group(*lines, *([told] if told.plain else []), *_uncertain(item))


def _short(value: object) -> bool:
    return isinstance(value, (str, int, float)) and len(str(value)) <= 40


def marked(item: Evidence, *, plain: bool) -> Text:
    """The example's text, cut to where its score lies, with the deciding words marked."""
    text = printable(item.text)
    marks = place(text, [(printable(token), share) for token, share in item.tokens])
    same = [Mark(a, b, 1.0) for a, b in joined(item.spans)]
    start, end = excerpt(text, marks or same, LONGEST)
    shown = Text("... " if start else "")
    at = start
    inner = [m for m in marks if start <= m.start and m.end <= end]
    told = strongest(text, inner)
    if not told:  # no influence: the words that are the same
        inner = [m for m in same if m.start < end and m.end > start]
        told = [Mark(max(m.start, start), min(m.end, end), 0.0) for m in inner]
    for mark in told:
        shown.append(_flat(text[at : mark.start]))
        shown.append_text(_word(_flat(text[mark.start : mark.end]), mark, plain=plain))
        at = mark.end
    shown.append(_flat(text[at:end]) + (" ..." if end < len(text) else ""))
    return shown


def _word(word: str, mark: Mark, *, plain: bool) -> Text:
    if mark.share == 0:  # the same words as in the output
        return Text(f"\u00ab{word}\u00bb" if plain else word, style="" if plain else SAME)
    supports = mark.share > 0
    if plain:
        return Text(f"[{word}]" if supports else f"{{{word}}}")
    return Text(word, style=FOR if supports else AGAINST)


def _flat(text: str) -> str:
    """On one line: line breaks of an example would tear the table."""
    return text.replace("\n", " ").replace("\t", " ")


def _by_target(target: Sequence[str], values: Sequence[float]) -> Text:
    """The score's largest parts by token of the completion, in its order."""
    pairs = list(zip(target, values, strict=True))
    limit = sorted((abs(value) for value in values), reverse=True)[:PARTS][-1]
    limit = max(limit, 0.1 * max(abs(value) for value in values))
    line = Text("for ", style="dim")
    kept = [pair for pair in pairs if abs(pair[1]) >= limit]
    for number, (token, value) in enumerate(kept):
        line.append((", " if number else "") + f"{printable(token)!r} ", style="dim")
        line.append_text(score_text(value, digits=2))
    return line


def _totals(column: str, totals: Sequence[tuple[str, float, int]]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column(column, overflow="fold")
    table.add_column("total", justify="right")
    table.add_column("examples", justify="right")
    hidden = len(totals) - 2 * GROUPS
    for place_, (name, total, count) in enumerate(totals):
        if hidden <= 0 or place_ < GROUPS or place_ >= len(totals) - GROUPS:
            table.add_row(Text(printable(name)), score_text(total), f"{count:,}")
        elif place_ == GROUPS:
            table.add_row(Text(f"... {hidden:,} more ...", style="dim"), "", "")
    return Group(Text(f"\ntotals by {column}", style="bold"), table)


def _legend(answer: Answer, *, plain: bool) -> Text:
    legend = Text(style="dim")
    shown = [*answer.proponents, *answer.opponents]
    if any(item.tokens for item in shown):
        legend.append_text(_word("words", Mark(0, 0, 1.0), plain=plain))
        legend.append(": where the score comes from, ")
        legend.append_text(_word("words", Mark(0, 0, -1.0), plain=plain))
        legend.append(": what takes from it. ")
    if not answer.kinds or answer.opponents:
        legend.append("above: examples that score lower. ")
    if any(item.specificity is not None for item in shown):
        legend.append("specific: reference queries under which this example scores lower.")
    return legend
