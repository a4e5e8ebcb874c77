"""Answers as one HTML file, and as what a notebook shows.

In a notebook an answer is the interface itself where `anywidget` is installed. A static table goes
with it in any case: for a notebook that is only looked at, and for kernels without widgets.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from headwater.engine.built import built, page
from headwater.engine.errors import ResourceError

if TYPE_CHECKING:
    from headwater.answer.answer import Answer, Evidence

TEXT = 400  # characters of whatever the static table shows
GONE = ("Cc", "Cs")  # control characters, and halves of characters
WIDGET = "application/vnd.jupyter.widget-view+json"


def payload(answers: Sequence[Answer]) -> dict[str, Any]:
    """What the interface is given when there is no server."""
    first = answers[0].query if len(answers) == 1 else f"{len(answers)} answers"
    title = f"Headwater: {first}"
    return {
        "version": version("headwater"),
        "title": title,
        "answers": [answer.to_dict() for answer in answers],
    }


def to_html(answers: Sequence[Answer]) -> str:
    """One self-contained HTML file of these answers.

    Raises:
        ResourceError: where the interface was not built.
    """
    made = payload(answers)
    return page(made, made["title"])


def mimebundle(answer: Answer) -> dict[str, Any]:
    """What a notebook shows, by MIME type: the widget where there is one, and a static table."""
    bundle: dict[str, Any] = {"text/plain": repr(answer), "text/html": table(answer)}
    if find_spec("anywidget") is None:
        return bundle
    try:
        source = built("widget.js").read_text(encoding="utf-8")
    except ResourceError:
        return bundle
    from headwater.answer.widget import AnswerWidget

    shown = AnswerWidget.of(source, payload([answer])).shown()
    return bundle | {kind: data for kind, data in shown.items() if kind == WIDGET}


def table(answer: Answer) -> str:
    """A static table: no script, no style sheet, no picture; all of it text."""
    verdict = answer.judgement.summary if answer.picture is None else answer.picture.summary
    parts = [
        f"<p><b>{_text(answer.query)}</b><br>{_text(answer.title)}; {_text(answer.order())}</p>",
        f"<p>{_text(verdict)}</p>",
        _rows(answer, "Supports", answer.proponents),
        _rows(answer, "Opposes", answer.opponents),
        *(f"<p>Note: {_text(note)}</p>" for note in answer.notes),
    ]
    return "<div>" + "".join(parts) + "</div>"


def _rows(answer: Answer, title: str, items: Sequence[Evidence]) -> str:
    if not items:
        return ""
    head = "<tr><th></th><th>score</th><th>above</th><th>id</th><th>text</th></tr>"
    body = "".join(_row(answer, item, rank) for rank, item in enumerate(items, 1))
    return f"<table><caption>{title}</caption>{head}{body}</table>"


def _row(answer: Answer, item: Evidence, rank: int) -> str:
    score = answer.score_of(item) or "-"
    above = "-" if item.percentile is None else f"{item.percentile:.2f} %"
    cells = (str(rank), score, above, item.id, item.text)
    row = "".join(f'<td style="text-align:left">{_text(one)}</td>' for one in cells)
    return f"<tr>{row}</tr>"


def _text(text: str) -> str:
    """As text only: markup escaped, and what turns the direction of writing held within it."""
    text = text if len(text) <= TEXT else text[:TEXT] + "..."
    kept = (c if c in "\n\t" or unicodedata.category(c) not in GONE else "\ufffd" for c in text)
    return f"<bdi>{html.escape(''.join(kept))}</bdi>"
