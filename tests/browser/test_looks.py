"""What holds on every view: nothing that assistive technology trips over, room in a narrow window."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from browser.needed import AXE, lacking
from browser.screen import SLOW, Watch, answer, visit, visit_asked
from browser.serving import Server

MOST = 400_000  # bytes of the app, compressed, without the map
ALIKE = ("ask, list", "ask, odd question", "compare, method", "compare, index")  # in their colours
FOUND = """async rules => {
    const only = rules === null ? {} : { runOnly: rules };
    const told = await axe.run(document, { resultTypes: ['violations'], ...only });
    const grave = told.violations.filter((one) => ['serious', 'critical'].includes(one.impact));
    return grave.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 200)).join(' | ')}`);
}"""
WIDER = """() => {
    const room = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= room) return [];
    const out = [...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > room + 1);
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
    visit_asked(page, "ask", method="logra", by="country")
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
    visit(page, "ask", index="facts", prompt="a", completion="b", words="7-9", method="trackstar")
    expect(page.get_by_role("progressbar")).to_have_count(0, timeout=SLOW)
    yield "ask, odd question"
    for mode in ("words", "method", "index"):
        more = {"other": " Quito", "index_b": "early", "method_b": "graddot"}
        visit_asked(page, "compare", **{"with": mode}, **more)
        expect(main.get_by_role("article").first).to_be_visible(timeout=SLOW)
        expect(page.get_by_role("progressbar")).to_have_count(0, timeout=SLOW)
        yield f"compare, {mode}"
    for part in ("totals", "words", "thin", "search"):
        visit_asked(page, "groups", part=part, by="country", method="logra")
        expect(main.get_by_role("table").or_(main.get_by_role("article")).first).to_be_visible(
            timeout=SLOW
        )
        yield f"groups, {part}"
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


def opened(browser: Browser, server: Server, **options: Any) -> Page:
    fresh = browser.new_context(reduced_motion="reduce", **options)
    page = fresh.new_page()
    page.goto(server.first)
    return page


def test_axe_finds_nothing_serious(browser: Browser, server: Server) -> None:
    if not AXE.is_file():
        lacking("there is no axe-core", "install it with `npm --prefix web ci`")
    page = opened(browser, server, color_scheme="light", viewport={"width": 1280, "height": 900})
    page.evaluate(AXE.read_text(encoding="utf-8"))  # the policy would not let a tag load it
    wrong: list[str] = []
    for name in screens(page):
        wrong += [f"{name}: {one}" for one in page.evaluate(FOUND, None)]
        if name not in ALIKE:
            page.emulate_media(color_scheme="dark")
            wrong += [f"{name}, dark: {one}" for one in page.evaluate(FOUND, ["color-contrast"])]
            page.emulate_media(color_scheme="light")
    page.context.close()
    assert not wrong, "\n".join(wrong)


def test_nothing_is_wider_than_a_narrow_window(browser: Browser, server: Server) -> None:
    page = opened(browser, server, viewport={"width": 390, "height": 844})
    watching = Watch(page, server.address)
    wrong: list[str] = []
    watching.expect("status of 400")  # of the filter that is wrong
    for name in screens(page):
        wrong += [f"{name}: {one}" for one in page.evaluate(WIDER)]
    assert not wrong, "\n".join(wrong)
    watching.check()
    page.context.close()


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
