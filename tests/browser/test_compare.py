"""Two answers side by side: other words, method or checkpoint; and how far the two agree."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from browser.screen import SLOW, values, visit_asked
from browser.world import EXAMPLES


def side(page: Page, name: str) -> Locator:
    """A side, when its examples are there."""
    found = page.get_by_role("region", name=name, exact=True)
    expect(found.get_by_role("article").first).to_be_visible(timeout=SLOW)
    return found


def test_the_changed_words_of_an_edited_completion(page: Page) -> None:
    visit_asked(page, "compare")
    edited = page.get_by_label("Edit the completion")
    edited.fill(" Santiago")
    changes = page.get_by_label("What changes")
    expect(changes.get_by_role("deletion")).to_contain_text("Lima")
    expect(changes.get_by_role("insertion")).to_contain_text("Santiago")
    edited.press("Control+Enter")
    left, right = side(page, "Lima"), side(page, "Santiago")
    expect(left.get_by_role("article").first).to_contain_text("Lima")
    expect(right.get_by_role("article").first).to_contain_text("Santiago")
    expect(page.get_by_text("on one scale for both sides")).to_be_visible()
    both = page.get_by_role("figure").filter(has_text="Scores of all examples")
    expect(both).to_contain_text(f"Lima ({EXAMPLES})")
    # The strongest bar of either side fills its rail: they share one scale.
    rails = page.locator(".rail span").evaluate_all("all => all.map(one => one.style.width)")
    assert sum(one == "100%" for one in rails) == 1
    assert values(page)["other"] == " Santiago"
    page.get_by_role("button", name="As it was").click()
    expect(page.get_by_text("Nothing is changed yet")).to_be_visible()


def test_another_method_and_how_far_the_two_agree(page: Page) -> None:
    visit_asked(page, "compare", method="trackstar")
    compared = page.get_by_role("group", name="Compare with")
    compared.get_by_role("button", name="another method").click()
    compared.get_by_label("The other method").select_option("graddot")
    side(page, "TrackStar"), side(page, "GradDot")
    expect(page.get_by_text("only ranks can be compared")).to_be_visible()
    agreement = page.get_by_role("region", name="Agreement")
    shared = agreement.get_by_role("table").filter(has_text="by chance").get_by_role("row")
    expect(shared.last).to_contain_text("%", timeout=SLOW)
    expect(agreement).to_contain_text(re.compile(r"Rank correlation [+−]\d"))
    ranks = agreement.get_by_role("application", name=re.compile("Ranks of"))
    ranks.focus()
    for _ in range(3):  # the first two are the same text, and share the first place
        page.keyboard.press("ArrowRight")
    expect(agreement.get_by_role("article")).to_contain_text(re.compile(r"TrackStar: no\. 3,"))
    point = ranks.locator("circle").nth(5)
    point.click(force=True)
    expect(agreement.get_by_role("article")).to_contain_text("GradDot: no.")
    agreement.get_by_role("button", name="The points as a table").click()
    table = agreement.get_by_role("table").filter(has_text="rank by TrackStar")
    expect(table.get_by_role("row").nth(1)).to_contain_text(re.compile(r"^\s*1"))


def test_an_earlier_checkpoint_beside_the_last(page: Page) -> None:
    visit_asked(page, "compare")
    compared = page.get_by_role("group", name="Compare with")
    compared.get_by_role("button", name="another index or checkpoint").click()
    compared.get_by_label("The other index").select_option("early")
    late, early = side(page, "facts"), side(page, "early")
    expect(late.get_by_role("article").first).to_contain_text("Peru")
    expect(early.get_by_role("article").first).to_contain_text(re.compile(r"no\. \d+ by facts"))
    expect(page.get_by_role("region", name="Agreement")).to_contain_text("Rank correlation")
    assert values(page)["index_b"] == "early"
