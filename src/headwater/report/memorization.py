"""What was memorised, as terminal tables: by domain with the control beside it, and by category."""

from __future__ import annotations

from rich import box
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from headwater.evidence.chance import KINDS
from headwater.evidence.memorization import CATEGORIES, Group, Memorization, Window
from headwater.report.words import printable

BAR = 12  # characters of the longest bar
EXAMPLES = 3  # of each category
STYLES = {"synthetic": "dim", "memorised": "green", "segmental": "yellow", "frequent": "red"}
CAVEAT = (
    "A window that the corpus holds is a match, not a cause, and one that it lacks may still have "
    "been learnt from it in other words."
)


def memorization_report(found: Memorization) -> RenderableType:
    """The whole result; print it with a `rich.console.Console`."""
    whole = found.groups[0]
    parts: list[RenderableType] = [_head(found, whole)]
    if whole.windows:
        parts += [_prompt_line(whole), Text(), _domains(found.groups)]
        parts += [_title("against chance"), _controls(whole)]
        parts += [_title("by how often the corpus holds a window"), _categories(whole)]
        parts += [_title("examples"), *_examples(found)]
    parts.append(Text())
    parts += [Text(f"note: {printable(note)}", style="dim") for note in notes(found)]
    return Lines(*parts)


def notes(found: Memorization) -> list[str]:
    """What a reader of the numbers should know."""
    made = [f"Looked up: {found.manner}."]
    if found.groups[0].windows:
        made.append("Intervals: 95 %, from drawing the prompts again.")
        made.append("Other, replaced, shuffled: windows of equal unigram probability.")
        made.append("Alone: median perplexity of the windows without their context.")
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


def _domains(groups: list[Group]) -> Table:
    """In each row the windows, and beside them the control's rates."""
    table = _table("", "windows", "run", "in the corpus", *KINDS)
    for group in groups:
        chance = [group.controls[kind].rate.value for kind in KINDS]
        table.add_row(
            Text("all", style="bold") if group.name is None else Text(printable(group.name)),
            f"{group.windows:,}",
            "-" if group.run is None else f"{group.run:.1f}",
            str(group.match),
            *("-" if value is None else f"{value:.2f}" for value in chance),
        )
    return table


def _controls(whole: Group) -> Table:
    table = _table("", "in the corpus", "fewer than the windows")
    for kind, meaning in KINDS.items():
        control = whole.controls[kind]
        name = Text(f"{kind}  ").append(meaning, style="dim")
        table.add_row(name, str(control.rate), str(control.difference))
    return table


def _categories(whole: Group) -> Table:
    table = _table("", "found", "windows", "share", "alone", "")
    bounds = [*list(CATEGORIES.values())[1:], None]
    most = max(share.windows for share in whole.categories.values())
    for (name, least), end in zip(CATEGORIES.items(), bounds, strict=True):
        share = whole.categories[name]
        table.add_row(
            Text(name, style=STYLES[name]),
            _bounds(least, end),
            f"{share.windows:,}",
            str(share.share),
            "-" if share.standalone is None else _short(share.standalone[1]),
            Text("█" * round(BAR * share.windows / most), style=STYLES[name]),
        )
    return table


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1e5 else f"{value:.0e}"


def _bounds(least: int, end: int | None) -> str:
    if end is None:
        return f"{least}+"
    return str(least) if end == least + 1 else f"{least}-{end - 1}"


def _examples(found: Memorization) -> list[Text]:
    lines: list[Text] = []
    for name, windows in found.examples(EXAMPLES).items():
        lines += [_example(name, window) for window in windows]
    return lines


def _example(name: str, window: Window) -> Text:
    line = Text(f"{name:<10}", style=STYLES[name], no_wrap=True, overflow="ellipsis")
    line.append(f"{window.count:>7,} x  ", style="default")
    line.append(repr(printable(window.text)), style="bold default")
    start, end = window.characters
    place = f"  prompt {window.prompt + 1}, sample {window.sample + 1}, characters {start}-{end}"
    return line.append(place, style="dim")
