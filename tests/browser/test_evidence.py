"""Reading an answer and judging it: cards, words, spans, documents; chance, and a test of it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from browser.screen import SLOW, answer, ask, question, visit_asked
from browser.world import ALIKE, EXAMPLES

SAID = re.compile(r"The capital of Peru is Lima\.: word for word in 2 examples")


@pytest.fixture
def found(page: Page) -> Locator:
    """The answer to the question that most tests ask."""
    visit_asked(page, "ask")
    return answer(page)


def card(found: Locator, name: str) -> Locator:
    return found.get_by_role("article", name=re.compile(rf"Example \d+: {name}$"))


def test_a_card_says_what_how_much_and_where_from(found: Locator) -> None:
    first = card(found, "peru-capital-1")
    expect(first).to_contain_text("States the fact")
    for kind in ("Influence", "Word for word", "Shared words"):
        expect(first).to_contain_text(re.compile(rf"{kind} no\. \d+ \([\d.]+\)"))
    expect(first).to_contain_text(re.compile(r"\+0\.\d+ cosine"))
    expect(first).to_contain_text(re.compile(r"above 9\d\.\d+ % of examples"))
    expect(first).to_contain_text("Carried by")
    # The word that carries it is shaded, and says by how much when it is pointed at.
    text = first.get_by_role("group", name="Text of example 1")
    shaded = text.locator("[data-mark]").filter(has_text="Peru").first
    assert float(shaded.evaluate("one => getComputedStyle(one).getPropertyValue('--strength')")) > 0
    shaded.hover()
    expect(first).to_contain_text(re.compile(r"“Peru” [+−][\d.]+ cosine: .*(supports|opposes)"))
    # The same text a second time is folded into this card, and so is what does not fit.
    expect(card(found, ALIKE)).to_have_count(0)
    first.get_by_text("1 more with the same text").click()
    expect(first).to_contain_text(ALIKE)
    first.get_by_role("button", name="all 5 fields").click()
    source = first.get_by_role("link", name="https://facts.example/peru-capital-1")
    expect(source).to_have_attribute("rel", "noreferrer noopener")
    opponents = found.get_by_role("region", name="Opposes").get_by_role("article")
    expect(opponents.first).to_contain_text(re.compile(r"−0\.\d+ cosine"))


def test_a_document_opens_with_what_stands_around_it(page: Page, found: Locator) -> None:
    card(found, "peru-capital-1").get_by_role("button", name="Document").click()
    dialog = page.get_by_role("dialog")
    near = dialog.get_by_role("paragraph")
    expect(dialog).to_contain_text("in the corpus")
    expect(dialog.locator("mark").first).to_contain_text("capital of Peru is")
    few = near.count()
    dialog.get_by_role("button", name="Show more around it").click()
    page.wait_for_function(
        "few => document.querySelectorAll('dialog p').length > few", arg=few, timeout=SLOW
    )
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)


def test_spans_lead_to_documents_and_back(page: Page) -> None:
    # Two spans that overlap: the corpus holds both halves, and no text holds all of it.
    question(page, "", "The capital of Peru is Lima. Embassies in Peru stand in its capital, Lima.")
    found = ask(page)
    listed = found.get_by_role("heading", name="Word for word in the training data")
    spans = found.locator("li", has=page.get_by_role("button", name=re.compile("^“.*”$")))
    expect(listed).to_be_visible()
    one = spans.get_by_role("button", name="“The capital of Peru is Lima.”").first
    one.click()
    marked = found.get_by_role("button", name=re.compile("word for word in"), pressed=True)
    expect(marked.first).to_have_accessible_name(SAID)
    documents = spans.filter(has=page.get_by_role("button", pressed=True)).get_by_role("list")
    documents.get_by_role("button", name="peru-capital-1", exact=True).click()
    first = card(found, "peru-capital-1")
    expect(first).to_be_focused()
    page.keyboard.press("Escape")
    expect(marked).to_have_count(0)
    # From the card's words back to the span of the output.
    first.get_by_role("button", name="stands in the output").click()
    expect(marked.first).to_have_accessible_name(SAID)


def test_which_words_of_an_example_a_word_leans_on(found: Locator) -> None:
    first = card(found, "peru-capital-1")
    first.get_by_role("button", name="Word by word").click()
    first.get_by_role("button", name="“Lima”").first.click()
    leaning = first.get_by_role("group", name="Words that “Lima” leans on")
    expect(leaning).to_contain_text("The capital of Peru is Lima.", timeout=SLOW)
    first.get_by_text("All pairs of words as a table").click()
    table = first.get_by_role("region", name="Shares of all pairs of words").get_by_role("table")
    expect(table.get_by_role("columnheader", name="Peru")).to_be_visible()
    row = table.get_by_role("row", name=re.compile("^Lima"))
    figures = row.get_by_role("cell").all_inner_texts()
    shares = [float(one.replace("−", "-")) for one in figures]
    score = first.get_by_text(re.compile(r"^[+−]0\.\d{3,}$")).first.inner_text()
    assert sum(shares) == pytest.approx(float(score.replace("−", "-")), rel=0.15)


def test_chance_stands_beside_the_scores(page: Page, found: Locator) -> None:
    beside = found.get_by_role("complementary", name="How far to trust it")
    expect(beside).to_contain_text("Best of 19 random outputs")
    expect(beside).to_contain_text("In cosine")
    expect(beside).to_contain_text("is an estimate, not an experiment")
    beside.get_by_text("As a table").click()
    counts = beside.get_by_role("table").first.get_by_role("cell").all_inner_texts()[2::3]
    assert sum(map(int, counts)) == EXAMPLES
    bars = beside.get_by_role("slider", name="Histogram of all scores")
    bars.focus()
    before = bars.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowLeft")
    expect(bars).not_to_have_attribute("aria-valuetext", before or "")


def test_nothing_stands_out_is_an_answer(page: Page) -> None:
    question(page, "A walk along the shore", " qqq zzz")
    found = ask(page)
    expect(found.get_by_role("heading", name="Nothing stands out")).to_be_visible()
    expect(found).to_contain_text("do not take them for the source")


def test_an_answer_is_put_to_the_test(page: Page, found: Locator) -> None:
    found.get_by_label("How many").fill("4")
    found.get_by_role("button", name="Test", exact=True).click()
    expect(found).to_contain_text(
        re.compile(r"(Confirmed|Not confirmed|Undecided)\."), timeout=SLOW
    )
    # Trained again without them, and without as many at random: it does not know it any more.
    table = found.get_by_role("table").filter(has_text="P of the output")
    chances = [
        float(re.findall(r"([\d.]+) %", row)[0])
        for row in table.get_by_role("row").all_inner_texts()[1:]
    ]
    whole, without, random, *_ = chances
    assert without < whole / 10
    assert without < random / 2
    steps = found.get_by_role("table").filter(has_text="log P, nats").first
    expect(steps.get_by_role("row").nth(3)).to_be_visible()
