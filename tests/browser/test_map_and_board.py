"""The corpus as a map with a lasso, and the evaluation as a table and a chart."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from browser.screen import SLOW, values, visit, visit_asked
from browser.world import EXAMPLES


def opened(page: Page) -> Locator:
    """The map, when its points are there."""
    found = page.get_by_role("application", name=f"Map of {EXAMPLES} examples")
    expect(found).to_be_visible(timeout=SLOW)
    return found


def test_a_lasso_on_the_coloured_map_makes_a_group(page: Page) -> None:
    visit_asked(page, "map", method="logra")
    drawn = opened(page)
    strongest = page.get_by_role("region", name="Examples of the map").get_by_role("row")
    expect(strongest.nth(1)).to_contain_text("Peru", timeout=SLOW)
    page.get_by_role("button", name="Lasso").click()
    box = drawn.bounding_box()
    assert box is not None
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.02)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()
    expect(page.get_by_role("heading", name=f"{EXAMPLES} chosen")).to_be_visible()
    page.get_by_role("button", name="Put on the list").click()
    expect(page.get_by_role("button", name=f"Your list ({EXAMPLES})")).to_be_visible()


def test_the_map_by_keyboard(page: Page) -> None:
    visit_asked(page, "map", method="logra")
    drawn = opened(page)
    expect(page.get_by_role("region", name="Examples of the map")).to_contain_text("+")
    drawn.focus()
    page.keyboard.press("n")
    card = page.get_by_role("region", name="Pointed at")
    expect(card).to_contain_text("Peru")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="1 chosen")).to_be_visible()
    page.keyboard.press("s")
    expect(page.get_by_role("heading", name=f"{EXAMPLES} chosen")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="chosen")).to_have_count(0)
    page.keyboard.press("+")
    page.wait_for_function("() => location.hash.includes('at=')")
    place = values(page)["at"]
    page.reload()
    opened(page)
    assert values(page)["at"] == place


def test_the_board_sorts_and_shows_quality_against_cost(page: Page) -> None:
    visit(page, "board")
    table = page.get_by_role("region", name="Table of methods")
    methods = table.get_by_role("rowheader")
    expect(methods.first).to_have_text("TrackStar")
    table.get_by_role("button", name="LDS").click()
    expect(methods.first).to_have_text("TrackStar")
    expect(methods.last).to_have_text("Random")
    table.get_by_role("button", name="LDS").click()
    expect(methods.first).to_have_text("Random")
    assert values(page)["sort"] == "LDS"
    expect(table.get_by_role("columnheader", name="LDS")).to_have_attribute(
        "aria-sort", "ascending"
    )
    # The chart names the same methods; a figure that is missing has its reason below.
    chart = page.get_by_role("img", name="LDS against")
    expect(chart.locator("text", has_text="TrackStar")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("it has no null")
    page.get_by_role("combobox", name="Figure").select_option("false attribution")
    expect(page.get_by_role("img", name="false attribution against")).to_be_visible()
    findings = page.get_by_role("region", name="Findings")
    for said in ("holds", "does not hold", "cannot be told"):
        expect(findings).to_contain_text(said)
    methods.filter(has_text="GradDot").get_by_role("button").click()
    expect(page.get_by_role("region", name="Chosen method")).to_contain_text('"seed": 0')
    assert re.search(r"row=graddot", page.url)


def test_a_grid_of_cells_is_a_heat_map_and_a_table(page: Page) -> None:
    visit(page, "board")
    grid = page.get_by_role("region", name="Grid").get_by_role("table", name="LDS")
    expect(grid.get_by_role("columnheader")).to_have_text(["1 pass", "2 passes"])
    expect(grid.get_by_role("rowheader")).to_have_text(["small", "large"])
    cells = grid.locator("tbody td")
    expect(cells.last).to_contain_text("0.410")
    colours = cells.evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    alphas = [float(re.findall(r"[\d.]+", colour)[-1]) for colour in colours]
    assert alphas.index(max(alphas)) == 3  # the greatest figure is the darkest
    assert alphas.index(min(alphas)) == 0
    cells.nth(1).get_by_role("button").click()
    expect(page.get_by_role("region", name="Chosen method")).to_contain_text("GradDot")
