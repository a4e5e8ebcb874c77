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

BAR = 20  # characters of the longest bar
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
        parts += [_domains(found.groups), _title("against chance"), _controls(found.groups)]
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
        made.append(
            "Control windows have the same unigram probability as the window they stand beside."
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
        table.add_column(
            column,
            justify="left" if number == 0 else "right",
            overflow="fold",
            no_wrap=number > 0,
        )
    return table


def _name(group: Group) -> Text:
    return Text("all", style="bold") if group.name is None else Text(printable(group.name))


def _domains(groups: list[Group]) -> Table:
    table = _table("", "windows", "run", "in the corpus", "not from prompt", "from prompt")
    for group in groups:
        run = "-" if group.run is None else f"{group.run:.1f}"
        inside = group.overlap["inside"] / group.windows if group.windows else 0.0
        table.add_row(
            _name(group),
            f"{group.windows:,}",
            run,
            str(group.match),
            str(group.match_beyond_prompt),
            f"{inside:.0%}" if group.windows else "-",
        )
    return table


def _controls(groups: list[Group]) -> Table:
    table = _table("", "control windows", "in the corpus", "difference", "compared")
    for group in groups:
        for number, (kind, meaning) in enumerate(KINDS.items()):
            control = group.controls[kind]
            table.add_row(
                _name(group) if number == 0 else "",
                Text(meaning),
                str(control.rate),
                str(control.difference),
                f"{control.rate.windows:,}",
            )
    return table


def _categories(whole: Group) -> Table:
    table = _table("", "found", "windows", "share", "perplexity alone")
    table.columns[-1].header = "perplexity alone (quartiles)"
    table.add_column("")
    bounds = [*list(CATEGORIES.values())[1:], None]
    most = max(share.windows for share in whole.categories.values())
    for (name, least), end in zip(CATEGORIES.items(), bounds, strict=True):
        share = whole.categories[name]
        alone = share.standalone
        quartiles = "-" if alone is None else " ".join(_short(value) for value in alone)
        bar = "█" * round(BAR * share.windows / most)
        table.add_row(
            Text(name, style=STYLES[name]),
            _bounds(least, end),
            f"{share.windows:,}",
            str(share.share),
            quartiles,
            Text(bar, style=STYLES[name]),
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
