"""Views beside Ask: they take its filter, and offer the methods that can be asked."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from browser.screen import SLOW, Watch, choose_view, values, visit_asked
from browser.world import EXAMPLES

OF_PERU = 8  # examples: seven facts, and one of them twice


def more(page: Page) -> Locator:
    """The part of the head that says which examples take part."""
    return page.locator(".head details").first


def narrow(page: Page, filter: str) -> None:
    box = page.get_by_role("searchbox", name="Only examples that pass a filter")
    box.fill(filter)
    box.press("Enter")


def test_a_filter_goes_with_the_question_from_view_to_view(page: Page, watch: Watch) -> None:
    visit_asked(page, "groups", part="totals", by="country", method="logra")
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(9, timeout=SLOW)
    more(page).get_by_text("More", exact=True).click()
    narrow(page, "country=Peru")
    expect(rows).to_have_count(2, timeout=SLOW)
    expect(rows.last).to_contain_text(str(OF_PERU))
    expect(more(page)).to_contain_text(f"{OF_PERU} of {EXAMPLES} examples pass")
    assert values(page)["among"] == "country=Peru"
    page.get_by_role("button", name="Where it is thin").click()
    expect(page.get_by_role("main")).to_contain_text(f"of {OF_PERU} examples", timeout=SLOW)
    choose_view(page, "Compare")
    page.get_by_role("button", name="another method").click()
    agreement = page.get_by_role("region", name="Agreement")
    expect(agreement).to_contain_text(f"of {OF_PERU} examples", timeout=SLOW)
    expect(more(page)).to_contain_text("only what passes country=Peru")
    # Ask has the same filter, and takes it away for all.
    choose_view(page, "Ask")
    expect(page.get_by_role("form", name="Question")).to_contain_text("country=Peru")
    choose_view(page, "Groups")
    more(page).get_by_text("More").first.click()
    watch.expect("status of 400")
    narrow(page, "county=Peru")
    expect(page.get_by_role("alert")).to_contain_text("did you mean country", ignore_case=True)
    expect(page.get_by_text("The filter under More is not right")).to_be_visible(timeout=SLOW)
    narrow(page, "")
    expect(page.get_by_text(f"of {EXAMPLES} examples")).to_be_visible(timeout=SLOW)
    assert "among" not in values(page)


def test_an_index_without_its_model_offers_what_reads_texts(page: Page) -> None:
    asked = {"index": "texts", "prompt": "The capital of", "completion": " endless"}
    visit_asked(page, "groups", part="words", **asked)
    method = page.get_by_role("combobox", name="Method")
    expect(method).to_have_value("bm25")
    expect(page.get_by_role("article").first).to_contain_text("BM25 score", timeout=SLOW)
    expect(method.get_by_role("option", name="TrackStar")).to_be_disabled()
    more(page).get_by_text("More", exact=True).click()
    more(page).get_by_text("Methods that cannot be asked").click()
    expect(more(page)).to_contain_text("It needs the model, and there is none here.")
    page.get_by_role("button", name="Where it is thin").click()
    expect(
        page.get_by_text(re.compile("match this more than chance|corpus is thin"))
    ).to_be_visible(timeout=SLOW)
    page.get_by_role("button", name="Totals by group").click()
    expect(page.get_by_text(re.compile("has no totals|no metadata"))).to_be_visible()
    choose_view(page, "Compare")
    page.get_by_role("button", name="another completion").click()
    edited = page.get_by_label("Edit the completion")
    edited.fill(" Lima")
    edited.press("Control+Enter")
    expect(page.get_by_role("article").first).to_contain_text("BM25 score", timeout=SLOW)
    # To an index with its model: the ranking is kept, and may be chosen away.
    page.get_by_role("combobox", name="Index").select_option("facts")
    method.select_option("logra")
    assert values(page)["method"] == "logra"
    assert "ranker" not in values(page)
