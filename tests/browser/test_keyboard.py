"""Every use without a mouse: Tab, arrows, Enter, Space and Escape, with the focus always in sight.

Asking by keyboard is in test_ask.py, the map in test_map_and_board.py.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from browser.keys import enter, reach
from browser.screen import SLOW, answer, values, visit, visit_asked
from browser.serving import Server


@pytest.fixture
def found(page: Page) -> Locator:
    """An answer whose methods' scores add up."""
    visit_asked(page, "ask", method="logra")
    return answer(page)


def test_the_evidence_is_read(page: Page, found: Locator) -> None:
    keys, first = page.keyboard, found.get_by_role("article").first
    spans = found.get_by_role("button", name="word for word in")
    enter(page, spans.first)
    expect(found.get_by_role("button", name="word for word in", pressed=True)).not_to_have_count(0)
    keys.press("Escape")
    expect(found.get_by_role("button", name="word for word in", pressed=True)).to_have_count(0)
    enter(page, first.get_by_role("button", name=re.compile(r"all \d fields")))
    expect(first.get_by_role("link")).to_be_visible()
    enter(page, first.get_by_role("button", name="Word by word"))
    enter(page, first.get_by_role("button", name="“Lima”").first)
    leaning = first.get_by_role("group", name="Words that “Lima” leans on")
    expect(leaning).to_be_visible(timeout=SLOW)


def test_a_document_holds_the_focus_and_gives_it_back(page: Page, found: Locator) -> None:
    keys, first = page.keyboard, found.get_by_role("article").first
    opener = first.get_by_role("button", name="Document")
    enter(page, opener)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("in the corpus")
    for _ in range(8):
        keys.press("Tab")
        within = "one => !document.activeElement || document.activeElement === document.body"
        assert dialog.evaluate(f"{within} || one.contains(document.activeElement)")
    keys.press("Escape")
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()


def test_an_answer_is_judged(page: Page, found: Locator) -> None:
    keys, beside = page.keyboard, found.get_by_role("complementary", name="How far to trust it")
    bars = beside.get_by_role("slider", name="Histogram of all scores")
    reach(page, bars)
    before = bars.get_attribute("aria-valuetext") or ""
    keys.press("ArrowLeft")
    expect(bars).not_to_have_attribute("aria-valuetext", before)
    enter(page, beside.get_by_text("As a table").first)
    expect(beside.get_by_role("table").first).to_be_visible()
    reach(page, beside.get_by_label("Seeds"))
    keys.press("Control+a")
    keys.type("20")
    keys.press("Enter")  # in a form, that is its button
    expect(beside.get_by_role("progressbar", name="Testing")).to_be_visible()
    enter(page, beside.get_by_role("button", name="Cancel"))
    expect(beside.get_by_role("progressbar")).to_have_count(0)


def test_two_answers_are_compared(page: Page) -> None:
    visit_asked(page, "compare", method="trackstar", method_b="graddot")
    keys = page.keyboard
    reach(page, page.get_by_label("Edit the completion"))
    keys.press("Control+a")
    keys.type(" Santiago")
    keys.press("Control+Enter")
    right = page.get_by_role("region", name="Santiago", exact=True)
    expect(right.get_by_role("article").first).to_contain_text("Santiago", timeout=SLOW)
    enter(page, page.get_by_role("button", name="another method"))
    agreement = page.get_by_role("region", name="Agreement")
    ranks = agreement.get_by_role("application", name=re.compile("Ranks of"))
    reach(page, ranks)
    keys.press("ArrowRight")
    expect(agreement.get_by_role("article")).to_contain_text("TrackStar: no.")
    other = page.get_by_label("The other method")
    reach(page, other)
    keys.press("ArrowDown")
    expect(other).not_to_have_value("graddot")


def test_groups_are_seen_and_acted_on(page: Page) -> None:
    visit_asked(page, "groups", by="country", method="logra")
    keys = page.keyboard
    reach(page, page.get_by_label("Find"))
    keys.type("peru")
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(2)
    enter(page, page.get_by_role("button", name="To the list : Peru"))
    panel = page.get_by_role("region", name="Your list", exact=True)
    expect(panel).to_contain_text("8 examples of facts")
    action = panel.get_by_label("Action for peru-capital-1", exact=True)
    reach(page, action)
    keys.type("inspect")
    expect(action).to_have_value("inspect")
    expect(panel).to_contain_text("drop 7, inspect 1.")
    keys.press("Shift+Tab")
    enter(page, panel.get_by_role("button", name="Predict for 7 marked “drop”"))
    expect(panel).to_contain_text("Without these 7 examples", timeout=SLOW)


def test_a_query_set_is_browsed(page: Page) -> None:
    visit(page, "queries", set="capitals")
    keys = page.keyboard
    rows = page.get_by_role("table").first.get_by_role("rowheader")
    enter(page, page.get_by_role("button", name="Next"))
    expect(rows.first).to_contain_text("fact-20")
    reach(page, page.get_by_role("searchbox", name="Filter"))
    keys.type("kenya")
    keys.press("Enter")
    expect(rows).to_have_count(5)
    enter(page, rows.nth(1).get_by_role("button"))
    detail = page.get_by_role("article", name="Query fact-10")
    enter(page, detail.get_by_role("button", name="Open in Ask"))
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("The capital of Kenya is")


def test_an_answer_is_shared(
    page: Page, found: Locator, context: BrowserContext, server: Server
) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.address)
    opener = found.get_by_role("button", name="Share", exact=True)
    enter(page, opener)
    enter(page, found.get_by_role("button", name="Copy link"))
    expect(found.get_by_text("Link copied")).to_be_visible()
    saver = found.get_by_role("button", name="CSV")
    reach(page, saver)
    with page.expect_download(timeout=SLOW) as waiting:
        page.keyboard.press("Space")
    assert waiting.value.suggested_filename.endswith(".csv")
    page.keyboard.press("Escape")
    expect(saver).to_have_count(0)
    expect(opener).to_be_focused()


def test_the_board_is_sorted_and_a_method_chosen(page: Page) -> None:
    visit(page, "board")
    keys, table = page.keyboard, page.get_by_role("region", name="Table of methods")
    sorter = table.get_by_role("button", name="LDS")
    enter(page, sorter)
    keys.press("Enter")
    expect(table.get_by_role("rowheader").first).to_have_text("Random")
    expect(sorter).to_be_focused()
    enter(page, table.get_by_role("button", name="GradDot"))
    expect(page.get_by_role("region", name="Chosen method")).to_contain_text('"seed": 0')
    figure = page.get_by_role("combobox", name="Figure")
    reach(page, figure)
    keys.type("false")
    expect(page.get_by_role("img", name="false attribution against")).to_be_visible()
    assert values(page)["row"] == "graddot"


def test_views_are_gone_through(page: Page) -> None:
    views = page.get_by_role("navigation", name="Views")
    for name in ("Compare", "Groups", "Query sets", "Map", "Evaluation", "Ask"):
        enter(page, views.get_by_role("button", name=name))
        expect(views.locator("[aria-current=page]")).to_have_text(name)
        expect(page.get_by_role("main")).not_to_be_empty()
