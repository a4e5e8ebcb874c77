"""Texts that attack whoever shows them: in every view, and in a report, they are only text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from browser import hostile
from browser.screen import SLOW, Watch, answer, choose_view, visit
from browser.world import World

ASKED = {"prompt": hostile.PROMPT, "completion": hostile.COMPLETION}

# Texts with letters that turn round what stands after them, where nothing keeps that inside.
TURNING = """root => {
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const found = [];
    const kept = 'bdi, pre, textarea, option, title';
    const turns = /[\\u202a-\\u202e\\u2066-\\u2069]/;
    for (let one = texts.nextNode(); one; one = texts.nextNode())
        if (turns.test(one.data) && !one.parentElement.closest(kept))
            found.push(one.parentElement.outerHTML.slice(0, 200));
    return found;
}"""


def only_text(place: Locator | Page, *texts: str) -> None:
    """The texts are to be read, and none of them became a part of the page."""
    body = place.locator("body") if isinstance(place, Page) else place
    for text in texts:
        expect(body).to_contain_text(text)
    assert body.locator("img, iframe, [onerror], [srcdoc], main script").count() == 0
    links = body.locator("a[href]").evaluate_all("all => all.map((one) => one.protocol)")
    assert set(links) <= {"http:", "https:"}
    assert body.evaluate(TURNING) == []


@pytest.mark.parametrize("index", ["hostile", "texts"])
def test_an_answer_shows_them_as_text(page: Page, index: str) -> None:
    visit(page, "ask", index=index, words="1-10", **ASKED)  # few enough to be looked at one by one
    found = answer(page)
    only_text(found, hostile.SCRIPT, hostile.IMAGE)
    found.get_by_role("button", name="fields").first.click()
    only_text(found, hostile.ENDING[:40])
    found.get_by_role("button", name="Document").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("in the corpus")
    dialog.get_by_role("button", name="Show more around it").click()
    only_text(dialog, hostile.SCRIPT, "</script>")
    page.keyboard.press("Escape")
    found.get_by_role("button", name="word for word in").first.click()
    if index == "hostile":
        found.get_by_role("button", name="Word by word").first.click()
        found.get_by_role("article").first.get_by_role("button", name="“").first.click()
    page.get_by_role("button", name="Share", exact=True).click()
    only_text(page, hostile.SCRIPT)


def test_a_line_of_100_kilobytes_neither_breaks_nor_hangs_the_page(page: Page) -> None:
    visit(page, "ask", index="texts", prompt="Say", completion=" endless", evidence="lexical")
    card = answer(page).get_by_role("article").filter(has_text="endless").first
    wide = "() => document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(wide)
    whole = card.get_by_role("button", name="Show all")
    expect(whole).to_contain_text("100,0")
    whole.click()
    expect(card.get_by_role("button", name="Show less")).to_be_visible()
    assert page.evaluate(wide)
    # As the question itself, too.
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Output").fill(f" {hostile.LONG}")
    page.get_by_role("textbox", name="Prompt").focus()
    expect(page.get_by_role("listbox", name="Words of the output")).to_be_visible()
    assert page.evaluate(wide)


@pytest.mark.parametrize("part", ["search", "totals", "words", "thin"])
def test_groups_show_them_as_text(page: Page, part: str) -> None:
    shown = page.get_by_role("main")
    visit(page, "groups", index="hostile", part=part, method="logra", by="source", **ASKED)
    if part != "words":
        expect(shown.get_by_role("table").or_(shown.get_by_role("article")).first).to_be_visible(
            timeout=SLOW
        )
    else:
        expect(shown.get_by_role("list", name="Important words")).to_be_visible(timeout=SLOW)
    only_text(page, hostile.SCRIPT)
    lists = shown.get_by_role("button", name="To the list")
    if lists.count():
        lists.first.click()
        expect(page.get_by_role("region", name="Your list", exact=True)).to_contain_text("example")
        only_text(page, hostile.SCRIPT)


@pytest.mark.parametrize("mode", ["words", "method", "index"])
def test_comparisons_show_them_as_text(page: Page, mode: str) -> None:
    more = {"other": f" {hostile.ENDING}", "index_b": "facts", "method_b": "graddot"}
    visit(page, "compare", index="hostile", **{"with": mode}, **more, **ASKED)
    expect(page.get_by_role("article").first).to_be_visible(timeout=SLOW)
    if mode == "words":  # the histogram comes later, with both completions over it
        expect(page.get_by_text("▶")).to_be_visible(timeout=SLOW)
    only_text(page, hostile.SCRIPT, hostile.IMAGE)


def test_map_board_and_sets_show_them_as_text(page: Page) -> None:
    visit(page, "map", index="hostile", **ASKED)
    page.get_by_role("application", name="Map of 9 examples").focus(timeout=SLOW)
    page.keyboard.press("n")
    only_text(page.get_by_role("main"), "Say")
    choose_view(page, "Evaluation")
    only_text(page, hostile.BOARD_TITLE)
    visit(page, "queries", set="capitals", where="id:script")
    expect(page.get_by_role("article").first).to_be_visible()
    page.get_by_text("What else the line says").click()
    only_text(page, hostile.SCRIPT, hostile.IMAGE, "half")


def test_the_address_is_data_from_anyone(page: Page, watch: Watch) -> None:
    """A link that somebody sends, with an attack in every value."""
    names = (
        "index",
        "method",
        "set",
        "by",
        "filter",
        "where",
        "sort",
        "row",
        "at",
        "with",
        "words",
    )
    attack = {name: f"{hostile.IMAGE}{hostile.LINK}" for name in names}
    watch.expect("status of 400")  # that is no filter
    for view in ("ask", "compare", "groups", "queries", "map", "board"):
        visit(page, view, **attack, **ASKED)
        expect(page.get_by_role("navigation", name="Views")).to_be_visible()
        expect(page.get_by_role("main")).not_to_be_empty()
        only_text(page)


@pytest.fixture
def report(made: World, assets: Path, tmp_path: Path) -> Path:
    """A report file of an answer over the hostile corpus."""
    import headwater as hw

    index = hw.Index.open(made.hostile)
    query = hw.Query(hostile.PROMPT, hostile.COMPLETION, words=[(1, 10)])
    kinds = ["influence", "verbatim", "lexical"]
    answer = hw.ask(index, query, by=["source"], method="logra", evidence=kinds, calibrate=False)
    path = tmp_path / "report.html"
    path.write_text(answer.to_html())
    return path


def test_a_report_from_a_disk_runs_and_asks_for_nothing(
    report: Path, context: BrowserContext
) -> None:
    page = context.new_page()
    watching = Watch(page, report.as_uri())
    page.goto(report.as_uri())
    found = answer(page)
    only_text(found, hostile.SCRIPT, hostile.IMAGE)
    found.get_by_role("button", name="Word by word").first.click()
    folded = found.get_by_role("button", name="fields")  # "less" when it is open
    while folded.count():
        folded.first.click()
    found.get_by_role("button", name="word for word in").first.click()
    only_text(found, hostile.SCRIPT)
    assert page.evaluate("() => document.querySelectorAll('script').length") == 2
    told = json.loads(page.locator("#headwater-data").inner_text())
    assert told["answers"][0]["prompt"] == hostile.PROMPT
    watching.check()


def test_attacks_would_be_seen(context: BrowserContext) -> None:
    """The same texts in a page that trusts them: the watch tells."""
    page = context.new_page()
    watching = Watch(page, "about:")
    page.set_content(f"<body>{hostile.IMAGE}{hostile.FRAME}")
    page.wait_for_function("() => window.pwned === 1")
    with pytest.raises(AssertionError, match=r"leak\.test"):
        watching.check()
