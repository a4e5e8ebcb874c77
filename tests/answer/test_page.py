"""Answers as a page, and in a notebook: hostile text stays text, and what is missing is told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from headwater.answer import page as pages
from headwater.answer.answer import Answer, Evidence, Judgement
from headwater.answer.shown import MOST, query_words
from headwater.engine import built as interface
from headwater.engine.errors import ResourceError
from headwater.tasks.query import Query

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    '<img src=x onerror="alert(1)">',
    "javascript:alert(1)",
    "\u202eabc\u2066def",
    "half \ud83d of a character",
    "a\u2028b\x00c",
    "&lt;b&gt;",
    "%DATA%",
    "x" * 100_000,
]


def item(text: str) -> Evidence:
    return Evidence("d-" + text[:9], text, 0.5, 99.0, 0, metadata={"source": text[:50]})


def answer(texts: list[str]) -> Answer:
    return Answer(
        query=texts[0],
        prompt=texts[0],
        completion=" Lima",
        target=[" Lima"],
        probability=float("nan"),
        method={},
        title="TrackStar",
        unit="cosine",
        additive=False,
        examples=3,
        proponents=[item(text) for text in texts],
        opponents=[replace(item(texts[-1]), score=None, percentile=None)],
        judgement=Judgement(0.5, [], None, None, "No null."),
        notes=texts,
    )


class Elements(HTMLParser):
    """The elements of a page, and the text of each script and of the title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self._in: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag in ("script", "title"):
            self._in = tag
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._in:
            self._in = None

    def handle_data(self, data: str) -> None:
        if self._in:
            self.texts[self._in][-1] += data


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page as the build leaves one, whatever was built here."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "report.html").write_text(
        "<!doctype html><html><head><title>Headwater</title></head><body><div id=app></div>"
        '<script type="application/json" id="headwater-data">%DATA%</script>'
        "<script>1</script></body></html>",
        encoding="utf-8",
    )
    monkeypatch.setattr(interface, "files", lambda _: tmp_path)


@pytest.mark.usefixtures("template")
def test_a_page_holds_the_whole_answer_and_hostile_text_is_only_data() -> None:
    made = answer(HOSTILE)
    found = Elements(made.to_html())
    assert found.tags == ["html", "head", "title", "body", "div", "script", "script"]
    data, script = found.texts["script"]
    assert script == "1"
    held = json.loads(data)
    assert [one["text"] for one in held["answers"][0]["proponents"]] == HOSTILE
    assert held["answers"][0]["probability"] is None  # JSON knows no NaN
    assert found.texts["title"] == [f"Headwater: {HOSTILE[0]}"]


def test_the_static_table_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "find_spec", lambda _: None)
    bundle = answer(HOSTILE)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    found = Elements(bundle["text/html"])
    assert set(found.tags) == {"div", "p", "b", "br", "bdi", "table", "caption", "tr", "th", "td"}
    assert set(found.attributes) == {"style"}
    assert len(bundle["text/html"]) < 20_000
    bundle["text/html"].encode("utf-8")
    assert "\x00" not in bundle["text/html"]


def test_a_widget_where_there_is_one_and_the_table_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "widget.js").write_text("export default {}", encoding="utf-8")
    monkeypatch.setattr(interface, "files", lambda _: tmp_path)
    bundle = answer(HOSTILE)._repr_mimebundle_()
    assert re.fullmatch("[0-9a-f]{32}", bundle[pages.WIDGET]["model_id"])
    assert "<table>" in bundle["text/html"]


def test_without_the_built_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "files", lambda _: tmp_path)
    with pytest.raises(ResourceError, match="not built.*make web"):
        answer(["a"]).to_html()
    assert set(answer(["a"])._repr_mimebundle_()) == {"text/plain", "text/html"}


# -- headings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "heading"),
    [
        (Query("The capital of Peru is", " Lima"), "“The capital of Peru is” → “Lima”"),
        (Query('It\'s "so":\n\tthe\\end', " a\nb"), '“It\'s "so": the\\end” → “a b”'),
        (Query("Is it", " Lima", instead_of=" Quito"), "“Is it” → “Lima” instead of “Quito”"),
        (Query("Is", " a b c", words=[(1, 2), (5, 6)]), "“Is” → “a b c” (only “a”, “c”)"),
        (Query("", "Lima"), "“Lima”"),
        (Query([{"role": "user", "content": "Where?"}], "Lima"), "“user: Where?” → “Lima”"),
        (Query("\x1b[31m\u202e", "\ud83d"), "“\ufffd[31m\ufffd” → “\ufffd”"),
        (Query(input_ids=[1, 2, 3], target=(1, 2)), "3 tokens, target (1, 2)"),
        (Query.mean([Query("a", "b"), Query("c", "d")]), "mean of 2 queries"),
    ],
)
def test_a_heading_is_text_and_not_python(query: Query, heading: str) -> None:
    assert query_words(query) == heading


def test_a_heading_shows_where_prompt_and_completion_meet() -> None:
    heading = query_words(Query("x" * 100_000 + "end", " begin" + "y" * 100_000))
    assert len(heading) < 2 * MOST + 20
    assert "end” → “begin" in heading
