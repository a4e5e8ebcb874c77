"""From a query to what is to be done: totals, words, a filter, thin places, a list of actions."""

from __future__ import annotations

import csv
import io
import json
import re

import pyarrow.parquet
from playwright.sync_api import Locator, Page, expect

from browser.screen import SLOW, Watch, answer, choose_view, taken, values, visit, visit_asked
from browser.world import EXAMPLES

OF_PERU = 8  # examples: seven facts, and one of them twice


def part(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Parts").get_by_role("button", name=name).click()


def listed(page: Page) -> Locator:
    return page.get_by_role("region", name="Your list", exact=True)


def test_a_group_is_added_up_listed_judged_and_taken_away(page: Page) -> None:
    visit_asked(page, "groups", by="country", method="trackstar")
    # Cosines have no sum; methods that have one are offered.
    expect(page.get_by_text("TrackStar has no totals")).to_be_visible()
    page.get_by_role("button", name="Use LoGra").click()
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows.nth(1)).to_contain_text(re.compile(r"Peru.*supports"), timeout=SLOW)
    totals = page.locator("tbody tr td:nth-child(3)").all_inner_texts()
    figures = [float(one.split()[0].replace("−", "-").replace(",", "")) for one in totals]
    assert figures == sorted(figures, reverse=True)
    page.get_by_label("Order").select_option("most opposing first")
    expect(rows.last).to_contain_text("Peru")
    page.get_by_label("Find").fill("pe")
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="To the list : Peru").click()
    expect(page.get_by_text(f"{OF_PERU} examples of Peru put on the list")).to_be_visible()
    panel = listed(page)
    expect(panel).to_contain_text(f"{OF_PERU} examples of facts")
    panel.get_by_role("button", name=f"Predict for {OF_PERU} marked “drop”").click()
    expect(panel).to_contain_text(f"Without these {OF_PERU} examples", timeout=SLOW)
    # The effect of the whole group is its total; what chance would do stands beside it.
    whole = page.locator("tbody td:nth-child(3)").inner_text().split()[0]
    expect(panel).to_contain_text(f"predicted {whole}")
    expect(panel).to_contain_text("as many at random")
    # One is to be read, one says something wrong; the list goes with the reader.
    panel.get_by_label("Action for peru-capital-1", exact=True).select_option("inspect")
    panel.get_by_label("Action for peru-capital-2", exact=True).select_option("relabel")
    panel.get_by_label("What peru-capital-2 should say").fill("=Quito")
    panel.get_by_label("What peru-capital-2 should say").press("Tab")
    expect(panel).to_contain_text(f"drop {OF_PERU - 2}, relabel 1, inspect 1.")
    check_files(page, panel)
    panel.get_by_role("button", name="Clear the list").click()
    expect(panel).to_contain_text("0 examples")
    panel.get_by_role("button", name=f"Bring back {OF_PERU}").click()
    expect(panel).to_contain_text(f"{OF_PERU} examples")
    page.reload()
    expect(listed(page)).to_contain_text(f"{OF_PERU} examples")


def check_files(page: Page, panel: Locator) -> None:
    """The list in its three forms says the same; no cell is a formula."""
    name, content = taken(page, panel.get_by_role("button", name="CSV"))
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert name.endswith(".csv")
    assert {row["id"]: row["action"] for row in rows}["peru-capital-1"] == "inspect"
    assert any(cell == "'=Quito" for row in rows for cell in row.values())
    _, content = taken(page, panel.get_by_role("button", name="JSON Lines"))
    lines = [json.loads(line) for line in content.splitlines()]
    assert sum(line["action"] == "drop" for line in lines) == OF_PERU - 2
    _, content = taken(page, panel.get_by_role("button", name="Parquet"))
    ids = pyarrow.parquet.read_table(io.BytesIO(content)).column("id").to_pylist()
    assert ids == [line["id"] for line in lines] == [row["id"] for row in rows]


def test_important_words_lead_to_cards_and_to_a_search(page: Page) -> None:
    visit_asked(page, "groups", part="words", method="logra", first="5")
    words = page.get_by_role("list", name="Important words")
    peru = words.get_by_role("button", name=re.compile(r"^\W*(peru|lima)\b", re.IGNORECASE)).first
    peru.click(timeout=SLOW)
    expect(peru).to_have_attribute("aria-pressed", "true")
    held = int(re.findall(r"(\d+) here", peru.inner_text())[0])
    expect(page.locator("article.lit")).to_have_count(held)
    page.get_by_role("button", name="Search the corpus for it").click()
    expect(
        page.get_by_role("status").filter(has_text=re.compile(r"^\d+ examples\s*$"))
    ).to_be_visible()
    assert values(page)["part"] == "search"


def test_a_filter_finds_and_says_where_it_is_not_understood(page: Page, watch: Watch) -> None:
    visit(page, "groups", index="facts")
    found = page.get_by_role("status").filter(has_text=re.compile(r"^\d+ examples\s*$"))
    expect(found).to_contain_text(f"{EXAMPLES} examples")
    box = page.get_by_role("searchbox", name="Filter and search")
    box.fill("country=Peru (lima or sol) -seat")
    box.press("Enter")
    cards = page.get_by_role("main").get_by_role("article")
    expect(found).not_to_contain_text(f"{EXAMPLES} examples")
    texts = cards.all_inner_texts()
    assert texts
    assert all("Peru" in text and "seat" not in text for text in texts)
    watch.expect("status of 400")
    box.fill("country=Peru (lima")
    box.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not understood at character")
    box.fill("addresses")
    page.get_by_role("button", name="Search", exact=True).click()
    cards.first.get_by_role("button", name="To the list").click()
    expect(listed(page)).to_contain_text("1 example of facts")


def test_what_is_missing_around_a_query(page: Page) -> None:
    visit_asked(page, "groups", part="thin", method="logra", by="country", completion=" Quito")
    expect(page.get_by_text("in none: missing")).to_be_visible(timeout=SLOW)
    known = page.get_by_role("button", name=re.compile(r"capital\s+in \d+ examples"))
    expect(known).to_be_visible()
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(9)
    rows.filter(has_text="Peru").get_by_role("button", name="Look at them").click()
    expect(page.get_by_text(f"{OF_PERU} examples")).to_be_visible()


def test_the_list_is_at_hand_beside_an_answer(page: Page) -> None:
    visit_asked(page, "ask")
    first = answer(page).get_by_role("article").first
    first.get_by_role("button", name="To the list").click()
    opener = page.get_by_role("button", name="Your list (1)")
    opener.press("Enter")
    panel = page.get_by_role("complementary", name="Selection")
    panel.get_by_label("All of them").select_option("drop")
    expect(panel.get_by_role("button", name="Predict for 1 marked")).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    choose_view(page, "Groups")
    expect(listed(page)).to_contain_text("drop 1.")
