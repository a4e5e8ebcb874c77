"""The notebook's widget: a page of our own imports its module and hands it an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from browser.screen import Watch, answer
from browser.world import COMPLETION, PROMPT, World

HOME = "http://notebook.test"
PAGE = """<!doctype html><title>cell</title><style>button { color: rgb(1, 2, 3) }</style>
<p><button id="theirs">a button of the notebook</button></p><div id="cell"></div>"""
MODEL = """payload => {
    const heard = new Map();
    return window.model = {
        held: payload,
        get(name) { return name === 'payload' ? this.held : undefined; },
        on(name, act) { heard.set(name, act); },
        off(name, act) { if (heard.get(name) === act) heard.delete(name); },
        change(value) { this.held = value; heard.get('change:payload')(); },
        heard,
    };
}"""
RENDER = """async ([payload, shadow]) => {
    const cell = document.getElementById('cell');
    const el = document.createElement('div');
    (shadow ? cell.attachShadow({ mode: 'open' }) : cell).append(el);
    const { default: widget } = await import('/widget.js');
    window.end = widget.render({ model: (%s)(payload), el });
}"""


@pytest.fixture(scope="module")
def payloads(made: World) -> list[str]:
    """Two answers, as the kernel hands them over."""
    import headwater as hw
    from headwater.answer.page import payload
    from headwater.engine.plain import plain

    index = hw.Index.open(made.index)
    queries = [hw.Query(PROMPT, COMPLETION), hw.Query("The capital of Kenya is", " Nairobi")]
    told = [hw.ask(index, query, top=5, evidence=["lexical", "verbatim"]) for query in queries]
    return [json.dumps(plain(payload([one]))) for one in told]


@pytest.fixture
def notebook(context: BrowserContext, assets: Path) -> Page:
    page = context.new_page()
    script = (assets / "widget.js").read_text()
    page.route(f"{HOME}/", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
    page.route(
        f"{HOME}/widget.js",
        lambda route: route.fulfill(body=script, content_type="text/javascript"),
    )
    page.goto(f"{HOME}/")
    return page


@pytest.mark.parametrize("shadow", [False, True], ids=["page", "shadow root"])
def test_it_draws_an_answer_where_it_is_put(
    notebook: Page, payloads: list[str], shadow: bool
) -> None:
    watching = Watch(notebook, HOME)
    notebook.evaluate(RENDER % MODEL, [payloads[0], shadow])
    found = answer(notebook)
    card = found.get_by_role("article").first
    expect(card).to_contain_text("The capital of Peru is Lima.")
    # Our styles apply inside, and stay inside.
    sheet = card.evaluate("one => getComputedStyle(one).backgroundColor")
    assert sheet == "rgb(255, 255, 255)"
    assert card.evaluate("one => getComputedStyle(one).borderRadius") == "8px"
    theirs = notebook.locator("#theirs").evaluate("one => getComputedStyle(one).color")
    assert theirs == "rgb(1, 2, 3)"
    # A word that is chosen is chosen in a shadow root, too; what needs a server is absent.
    found.get_by_role("button", name="word for word in").first.click()
    expect(found.get_by_role("button", name="word for word in", pressed=True).first).to_be_visible()
    expect(found.get_by_role("button", name="Document")).to_have_count(0)
    # A new answer takes the place of the old one.
    notebook.evaluate("payload => window.model.change(payload)", payloads[1])
    expect(found.get_by_role("article").first).to_contain_text("Nairobi")
    expect(found).not_to_contain_text("Peru is Lima")
    notebook.evaluate("() => window.end()")
    expect(found).to_have_count(0)
    assert notebook.evaluate("() => window.model.heard.size") == 0
    watching.check()


def test_an_answer_shows_itself_with_it(made: World, payloads: list[str], assets: Path) -> None:
    """What a notebook asks an answer for holds the widget, and text for where there is none."""
    pytest.importorskip("anywidget")
    import headwater as hw

    shown = hw.ask(hw.Index.open(made.texts), hw.Query("Say", " endless"), top=2)
    told = shown._repr_mimebundle_()
    bundle = told[0] if isinstance(told, tuple) else told
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "endless" in bundle.get("text/plain", "") + bundle.get("text/html", "")
