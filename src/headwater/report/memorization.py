"""What was memorised, as terminal tables: beside the controls, by domain, and by category."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from headwater.evidence.chance import KINDS
from headwater.evidence.memorization import CATEGORIES, Group, Memorization, Window
from headwater.report.words import printable

BAR = 20  # characters that are all windows
SCALE = f"0 %{'100 %':>{BAR - 3}}"  # over the bars
EXAMPLES = 3  # of each category
STYLES = {"synthetic": "dim", "memorised": "green", "segmental": "yellow", "frequent": "red"}
CAVEAT = (
    "A window that the corpus holds is a match, not a cause, and one that it lacks may still have "
    "been learnt from it in other words."
)


def memorization_report(found: Memorization, ids: Sequence[str] = ()) -> RenderableType:
    """The whole result; print it with a `rich.console.Console`.

    Args:
        ids: of the prompts, by their number; left out, they are called by that.
    """
    whole = found.groups[0]
    parts: list[RenderableType] = [_head(found, whole)]
    if whole.windows:
        parts += [_prompt_line(whole), _title("against chance"), _controls(whole)]
        if len(found.groups) > 1:
            parts += [_title("by domain"), _domains(found.groups[1:])]
        parts += [_title("by how often the corpus holds a window"), _categories(whole)]
        parts += [_title("examples"), *_examples(found, ids)]
    parts.append(Text())
    parts += [Text(f"note: {printable(note)}", style="dim") for note in notes(found)]
    return Lines(*parts)


def notes(found: Memorization) -> list[str]:
    """What a reader of the numbers should know."""
    made = [f"Looked up: {found.manner}."]
    whole = found.groups[0]
    if whole.windows:
        if whole.match.low is not None:
            made.append("Intervals: 95 %, from drawing the prompts again.")
        else:
            made.append("No intervals: they come from drawing prompts, and one has all windows.")
        made.append("Other, replaced, shuffled: windows of equal unigram probability.")
        made.append(
            "Alone: median perplexity (mean of 1 / p) of the windows without their context."
        )
    if found.unreadable:
        made.append(f"{found.unreadable:,} windows left out: half a character inside.")
    made.append(CAVEAT)
    return made


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _head(found: Memorization, whole: Group) -> Text:
    settings = found.settings
    text = Text(f"{whole.windows:,} windows", style="bold")
    return text.append(
        f" of {settings['length']} tokens, each with p of at least {settings['threshold']:g}, in "
        f"{whole.outputs:,} outputs of {whole.prompts:,} prompts ({whole.tokens:,} tokens)",
        style="dim",
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        left = number == 0 or not column
        table.add_column(column, justify="left" if left else "right", no_wrap=number > 0)
    table.columns[0].overflow = "fold"
    return table


def _prompt_line(whole: Group) -> Text:
    text = Text("mean run ", style="dim").append(f"{whole.run:.1f} tokens", style="default")
    text.append(f" (sd {whole.run_deviation:.1f}); ")
    inside = whole.overlap["inside"] / whole.windows
    text.append(f"{inside:.0%} of the windows stand in their prompt")
    if whole.overlap["inside"]:
        text.append(f", of the others {whole.match_beyond_prompt} are in the corpus")
    return text


def _controls(whole: Group) -> Table:
    table = _table("", "in the corpus", "fewer than the windows")
    table.add_row(Text("the windows", style="bold"), str(whole.match), "")
    for kind, meaning in KINDS.items():
        control = whole.controls[kind]
        name = Text(f"{kind}  ").append(meaning, style="dim")
        table.add_row(name, str(control.rate), str(control.difference))
    return table


def _domains(groups: list[Group]) -> Table:
    """In each row the windows, and beside them the control's rates."""
    table = _table("", "windows", "run", "in the corpus", *KINDS)
    for group in groups:
        chance = [group.controls[kind].rate.value for kind in KINDS]
        table.add_row(
            Text(printable(group.name or "")),
            f"{group.windows:,}",
            "-" if group.run is None else f"{group.run:.1f}",
            str(group.match),
            *("-" if value is None else f"{value:.2f}" for value in chance),
        )
    return table


def _categories(whole: Group) -> Table:
    table = _table("", "found", "windows", "share", SCALE, "alone")
    table.columns[4].justify = "left"
    bounds = [*list(CATEGORIES.values())[1:], None]
    for (name, least), end in zip(CATEGORIES.items(), bounds, strict=True):
        share = whole.categories[name]
        table.add_row(
            Text(name, style=STYLES[name]),
            _bounds(least, end),
            f"{share.windows:,}",
            str(share.share),
            Text("█" * round(BAR * share.windows / whole.windows), style=STYLES[name]),
            "-" if share.standalone is None else _perplexity(share.standalone[1]),
        )
    return table


def _perplexity(value: float) -> str:
    """In plain figures: up to two places, none above a hundred, and no exponents."""
    if value < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:,.0f} million"


def _bounds(least: int, end: int | None) -> str:
    if end is None:
        return f"{least}+"
    return str(least) if end == least + 1 else f"{least}-{end - 1}"


def _examples(found: Memorization, ids: Sequence[str]) -> list[Text]:
    lines: list[Text] = []
    for name, windows in found.examples(EXAMPLES).items():
        for window in windows:
            prompt = ids[window.prompt] if ids else str(window.prompt)
            lines.append(_example(name, window, printable(prompt)))
    return lines


def _example(name: str, window: Window, prompt: str) -> Text:
    line = Text(f"{name:<10}", style=STYLES[name], no_wrap=True, overflow="ellipsis")
    line.append(f"{window.count:>7,} x  ", style="default")
    line.append(repr(printable(window.text)), style="bold default")
    start, end = window.characters
    place = f"  prompt {prompt}, sample {window.sample}, characters {start}-{end}"
    return line.append(place, style="dim")
