"""What holds on every view: nothing trips assistive technology or keys; narrow windows suffice."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, expect

from browser.keys import UNREACHED, wrong_stops
from browser.needed import AXE, not_built
from browser.screen import SLOW, Watch, answer, visit, visit_asked
from browser.serving import Server

Scheme = Literal["light", "dark"]
MOST = 400_000  # bytes of the app, compressed, without the map
ALIKE = ("ask, list", "ask, odd question", "compare, method", "compare, index")  # in their colours
HEAD = 72  # pixels that the head may take of a narrow window
CONTRAST = ["color-contrast"]
# One screen of each view ("ask, list" is the answer with the list beside it).
MAIN = ("ask, list", "compare, words", "groups, totals", "queries", "map", "board")
FOUND = """async rules => {
    const only = rules === null ? {} : { runOnly: rules };
    const told = await axe.run(document, { resultTypes: ['violations'], preload: false, ...only });
    const grave = told.violations.filter((one) => ['serious', 'critical'].includes(one.impact));
    const where = (one) => one.nodes.map((node) => node.html.slice(0, 200)).join(' | ');
    return grave.map((one) => `${one.id}: ${where(one)}`);
}"""
WIDER = """() => {
    const room = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= room) return [];
    const beyond = (one) => one.getBoundingClientRect().right > room + 1;
    const out = [...document.querySelectorAll('main *')].filter(beyond);
    return out.slice(0, 5).map((one) => one.outerHTML.slice(0, 160)).concat(['the page']);
}"""


def screens(page: Page) -> Iterator[str]:
    """One view after the other, with all that there is to see in it, by name."""
    main = page.get_by_role("main")
    visit(page, "ask", index="facts")
    expect(page.get_by_role("textbox", name="Prompt")).to_be_visible()
    yield "ask, empty"
    page.get_by_text("How it generates").click()
    page.get_by_text("More", exact=True).click()
    yield "ask, options"
    visit_asked(page, "ask", method="logra", by="country", top="3")
    card = answer(page).get_by_role("article").first
    expect(page.get_by_role("listbox").get_by_text("%").first).to_be_visible(timeout=SLOW)
    card.get_by_role("button", name="Word by word").click()
    page.get_by_text("As a table").click()
    page.get_by_role("button", name="Share", exact=True).click()
    yield "ask, answer"
    card.get_by_role("button", name="To the list").click()
    page.get_by_role("button", name="Your list").click()
    yield "ask, list"
    page.get_by_role("button", name="Close").click()
    card.get_by_role("button", name="Document").click()
    expect(page.get_by_role("dialog")).to_contain_text("in the corpus")
    yield "ask, document"
    page.keyboard.press("Escape")
    odd = {"prompt": "a", "completion": "b", "words": "7-9", "method": "trackstar"}
    visit(page, "ask", index="facts", top="3", **odd)
    expect(page.get_by_role("progressbar")).to_have_count(0, timeout=SLOW)
    yield "ask, odd question"
    visit_asked(page, "ask", method="logra", top="3", uncertainty="40")
    # So many that it cannot end before.
    expect(page.get_by_role("progressbar")).to_be_visible(timeout=SLOW)
    yield "ask, the answer before"
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled")).to_be_visible(timeout=SLOW)
    for mode in ("words", "method", "index"):
        more = {"other": " Quito", "index_b": "early", "method_b": "graddot"}
        visit_asked(page, "compare", top="3", **{"with": mode}, **more)
        expect(main.get_by_role("article").first).to_be_visible(timeout=SLOW)
        expect(page.get_by_role("progressbar")).to_have_count(0, timeout=SLOW)
        yield f"compare, {mode}"
    for part in ("totals", "words", "thin", "search"):
        visit_asked(page, "groups", part=part, by="country", method="logra")
        expect(main.get_by_role("table").or_(main.get_by_role("article")).first).to_be_visible(
            timeout=SLOW
        )
        yield f"groups, {part}"
    visit_asked(page, "groups", part="totals", by="country", method="logra", among="relaton=x")
    expect(page.get_by_role("alert")).to_contain_text("asks for the column relaton")
    yield "groups, a filter of the question that is wrong"
    visit(page, "groups", part="search", filter="(oh")
    expect(page.get_by_role("alert")).to_be_visible()
    yield "groups, a filter that is wrong"
    visit(page, "queries", set="capitals")
    expect(main.get_by_role("article")).to_be_visible()
    yield "queries"
    visit_asked(page, "map", method="logra")
    expect(page.get_by_role("application")).to_be_visible(timeout=SLOW)
    expect(page.get_by_role("region", name="Examples of the map")).to_contain_text("+")
    yield "map"
    visit(page, "board", row="trackstar")
    expect(page.get_by_role("region", name="Chosen method")).to_be_visible()
    yield "board"


@contextmanager
def opened(browser: Browser, server: Server, width: int, height: int) -> Iterator[Page]:
    """A page of this size, with axe in it; it is watched."""
    if not AXE.is_file():
        not_built("there is no axe-core", "install it with `npm --prefix web ci`")
    size = {"width": width, "height": height}
    fresh = browser.new_context(reduced_motion="reduce", viewport=size)  # type: ignore[arg-type]
    page = fresh.new_page()
    watching = Watch(page, server.address)
    watching.expect("status of 400")  # of the filter that is wrong
    try:
        page.goto(server.first)
        page.evaluate(AXE.read_text(encoding="utf-8"))  # the policy would not let a tag load it
        yield page
        watching.check()
    finally:
        fresh.close()


def grave(page: Page, name: str, scheme: Scheme, rules: list[str] | None = None) -> list[str]:
    """What axe finds on a screen in these colours, by all rules or some."""
    page.emulate_media(color_scheme=scheme)
    return [f"{name}, {scheme}: {one}" for one in page.evaluate(FOUND, rules)]


def test_axe_finds_nothing_serious_and_keys_reach_all(browser: Browser, server: Server) -> None:
    wrong: list[str] = []
    with opened(browser, server, 1280, 900) as page:
        for name in screens(page):
            wrong += grave(page, name, "light")
            if name not in ALIKE:
                wrong += grave(page, name, "dark", CONTRAST)
            wrong += [f"{name}, no key reaches: {one}" for one in page.evaluate(UNREACHED)]
            if name in MAIN:
                wrong += [f"{name}: {one}" for one in wrong_stops(page)]
    assert not wrong, "\n".join(wrong)


def test_a_narrow_window_holds_it_all(browser: Browser, server: Server) -> None:
    wrong: list[str] = []
    with opened(browser, server, 390, 844) as page:
        for name in screens(page):
            wrong += [f"{name}, wider: {one}" for one in page.evaluate(WIDER)]
            head = page.get_by_role("banner").bounding_box()
            if head is None or head["height"] > HEAD:
                wrong.append(f"{name}, the head takes {head}")
            wrong += grave(page, name, "dark")
            if name in MAIN:
                wrong += grave(page, name, "light", CONTRAST)
    assert not wrong, "\n".join(wrong)


def test_the_app_is_small(assets: Path) -> None:
    parts = [one for one in (assets / "app").rglob("*") if one.is_file()]
    own = [one for one in parts if not re.match("map", one.name, re.IGNORECASE)]
    size = sum(len(gzip.compress(one.read_bytes(), 6)) for one in own)
    assert 10_000 < size <= MOST


def test_nothing_in_it_is_loaded_from_elsewhere(assets: Path) -> None:
    """No fonts, no scripts, no styles of other places, in any of the three outputs."""
    loads = re.compile(
        r"""(?:src|href)=["']https?:|@import|url\(["']?https?:|import\(["']https?:"""
    )
    for one in assets.rglob("*"):
        if one.suffix in (".js", ".css", ".html"):
            assert not loads.findall(one.read_text(encoding="utf-8")), one.name
