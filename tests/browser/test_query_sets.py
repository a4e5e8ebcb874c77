"""Sets of queries, given or uploaded: paged, filtered, sorted, read, asked, exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from browser.screen import answer, taken, values, visit
from browser.world import COUNTRIES, World

FACTS = 5 * len(COUNTRIES)
ALL = FACTS + 4


@pytest.fixture
def rows(page: Page) -> Locator:
    """Rows of the set that the server was given."""
    visit(page, "queries", set="capitals")
    expect(page.get_by_role("status").filter(has_text=f"{ALL} queries")).to_be_visible()
    return page.get_by_role("table").first.get_by_role("rowheader")


def test_a_set_is_paged_filtered_sorted_and_read(page: Page, rows: Locator) -> None:
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="Next").click()
    expect(rows.first).to_contain_text("fact-20")
    box = page.get_by_role("searchbox", name="Filter")
    box.fill("relation=capital kenya")
    box.press("Enter")
    expect(rows).to_have_count(5)
    # One of these five has the right document first.
    means = page.get_by_role("definition").filter(has_text="0.")
    expect(means.first).to_contain_text("0.200")
    page.get_by_role("button", name="query", exact=True).click()
    page.get_by_role("button", name="query", exact=True).click()
    expect(rows.first).to_contain_text("fact-34")
    rows.last.get_by_role("button").press("Enter")
    detail = page.get_by_role("article", name="Query fact-02")
    expect(detail).to_contain_text("City 2 is told of here.")
    expect(detail.get_by_role("listitem").first.get_by_role("mark")).to_have_text("City 2")
    expect(detail).to_contain_text("right")
    assert values(page)["where"] == "relation=capital kenya"
    detail.get_by_role("button", name="Open in Ask").click()
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("The capital of Kenya is")
    expect(answer(page)).to_contain_text("City 2")


def test_each_kind_of_set_shows_well_and_bad_lines_are_told(page: Page, rows: Locator) -> None:
    page.get_by_text("1 line could not be read").click()
    expect(page.get_by_text(f"line {ALL + 1}:")).to_be_visible()
    shown = {
        "commonsense-1": "Water runs downhill",
        "arithmetic-1": "17 + 25 = 42",
        "open-1": "They run to the sea.",
    }
    for name, said in shown.items():
        visit(page, "queries", set="capitals", where=f"id:{name}")
        expect(rows).to_have_count(1)
        expect(page.get_by_role("article", name=f"Query {name}")).to_contain_text(said)


def test_a_file_is_loaded_set_beside_another_and_exported(
    page: Page, rows: Locator, tmp_path: Path, made: World
) -> None:
    lines = made.queries.read_text().splitlines()[:12]
    theirs = [json.loads(line) for line in lines]
    for one in theirs:
        one["proponent_correct"] = [True, False]
    path = tmp_path / "better.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in theirs))
    page.get_by_label("Load a file").set_input_files(path)
    expect(page.get_by_role("status").filter(has_text="better.jsonl")).to_contain_text("12 queries")
    expect(rows).to_have_count(12)
    page.get_by_label("beside").select_option("capitals")
    expect(page.get_by_role("table").first).to_contain_text("the same")
    expect(page.get_by_role("table").first).to_contain_text("+")
    name, content = taken(page, page.get_by_role("link", name="PAIR viewer"))
    assert name == "headwater-better.pair.jsonl"
    # What went in comes out again.
    assert [json.loads(line) for line in content.splitlines()] == theirs
