"""Ask: a prompt, the model's words or one's own, the words that are meant; by mouse and by keys."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from browser.screen import SLOW, answer, ask, question, values, visit_asked, words
from browser.world import COMPLETION, PROMPT

CHANCE = re.compile(r"^Lima\b.*\d %")


def generate(page: Page, tokens: int) -> None:
    page.get_by_role("textbox", name="Prompt").fill(PROMPT)
    page.get_by_text("How it generates").click()
    page.get_by_label("At most, tokens").fill(str(tokens))
    page.get_by_role("button", name="Generate").click()
    expect(words(page).get_by_role("option", name=CHANCE).first).to_be_visible(timeout=SLOW)
    expect(page.get_by_role("button", name="Generate anew")).to_be_enabled(timeout=SLOW)


def test_generated_words_are_picked_by_mouse_and_asked_about(page: Page) -> None:
    generate(page, 8)
    options = words(page).get_by_role("option")
    # A drag over the first two, and a further range beside it.
    options.nth(0).hover()
    page.mouse.down()
    options.nth(1).hover()
    page.mouse.up()
    options.nth(3).click(modifiers=["ControlOrMeta"])
    chosen = words(page).get_by_role("option", selected=True)
    expect(chosen).to_have_count(3)
    found = ask(page)
    asked = values(page)
    assert asked["prompt"] == PROMPT
    assert asked["completion"].startswith(COMPLETION)
    first, second = (tuple(map(int, one.split("-"))) for one in asked["words"].split(","))
    assert first[0] in (0, 1)
    assert first[1] < second[0]
    targets = found.get_by_role("group", name="Words of the output").get_by_role("button")
    expect(targets).to_have_count(3)
    expect(targets.first).to_have_text("“Lima”")
    # A click alone explains that word alone, and the answer is told to be the one before.
    options.nth(0).click()
    expect(chosen).to_have_count(1)
    expect(page.get_by_text("this is the answer to the one before")).to_be_visible()
    ask(page)
    expect(page.get_by_role("article").first).to_contain_text("Lima")
    assert values(page)["words"] in ("0-5", "1-5")


def test_all_of_it_by_keyboard(page: Page) -> None:
    """From the address bar to an example's document, without a mouse."""
    keys = page.keyboard
    prompt = page.get_by_role("textbox", name="Prompt")
    for _ in range(12):
        keys.press("Tab")
        if prompt.evaluate("one => one === document.activeElement"):
            break
    keys.type(PROMPT)
    keys.press("Control+Enter")
    options = words(page).get_by_role("option")
    expect(options.filter(has_text="Lima").first).to_be_visible(timeout=SLOW)
    expect(page.get_by_role("button", name="Generate anew")).to_be_enabled(timeout=SLOW)
    focused = page.locator(":focus")
    for _ in range(20):
        keys.press("Tab")
        if focused.get_attribute("role") == "option":
            break
    expect(options.first).to_be_focused()  # one stop for all words
    keys.press("Shift+ArrowRight")
    chosen = words(page).get_by_role("option", selected=True)
    expect(chosen).to_have_count(2)
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    keys.press("Space")
    expect(chosen).to_have_count(3)
    keys.press("Escape")
    expect(chosen).to_have_count(0)
    keys.press("Home")
    keys.press("Enter")
    expect(chosen).to_have_count(1)
    expect(chosen).to_contain_text("Lima")
    keys.press("Control+Enter")
    answer(page)
    assert values(page)["words"] in ("0-5", "1-5")
    opener = page.get_by_role("article").first.get_by_role("button", name="Document")
    for _ in range(80):
        keys.press("Tab")
        if opener.evaluate("one => one === document.activeElement"):
            break
    keys.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("in the corpus")
    keys.press("Escape")
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()


def test_a_typed_output_with_its_probabilities_and_tokens(page: Page) -> None:
    question(page, PROMPT, " Lima. Chile")
    options = words(page).get_by_role("option")
    expect(options.first).to_have_accessible_name(CHANCE, timeout=SLOW)
    many = options.count()
    page.get_by_role("button", name="Show tokens").click()
    assert options.count() >= many
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Output").fill(" Quito")
    page.get_by_role("textbox", name="Prompt").focus()
    expect(options.first).to_have_accessible_name(re.compile("Qu"))


def test_work_shows_its_progress_and_is_cancelled(page: Page) -> None:
    visit_asked(page, "ask")
    found = answer(page)
    found.get_by_label("Seeds").fill("20")
    found.get_by_role("button", name="Test", exact=True).click()
    expect(found.get_by_role("progressbar", name="Testing")).to_be_visible()
    found.get_by_role("button", name="Cancel").click()
    expect(found.get_by_role("progressbar")).to_have_count(0)
    # What was cancelled stands in nobody's way.
    question(page, PROMPT, " Quito")
    ask(page)
    expect(found).to_contain_text("Quito", timeout=SLOW)


def test_several_indexes_and_methods_are_open(page: Page) -> None:
    question(page)
    page.get_by_label("Index").select_option("early")
    page.get_by_label("Method of influence").select_option("graddot")
    page.get_by_role("checkbox", name="Word for word").uncheck()
    page.get_by_role("checkbox", name="Shared words").uncheck()
    found = ask(page)
    expect(found).to_contain_text("GradDot")
    asked = values(page)
    assert (asked["index"], asked["method"], asked["evidence"]) == ("early", "graddot", "influence")
    # A step back, and the question before is there again.
    page.get_by_label("Method of influence").select_option("gradcos")
    ask(page)
    expect(page.get_by_role("article").first).to_contain_text("cosine")
    page.go_back()
    expect(page.get_by_label("Method of influence")).to_have_value("graddot")
    expect(page.get_by_role("article").first).to_contain_text("loss decrease")


def test_an_index_without_a_model_answers_with_what_needs_none(page: Page) -> None:
    page.get_by_label("Index").select_option("texts")
    expect(page.get_by_text("No model at hand")).to_be_visible()
    expect(page.get_by_role("button", name="Generate")).to_have_count(0)
    expect(page.get_by_role("checkbox", name="Influence")).to_be_disabled()
    question(page, "Say", " endless")
    found = ask(page)
    expect(found.get_by_role("article").first).to_contain_text("endless")
    expect(found.get_by_role("button", name="Word by word")).to_have_count(0)
    expect(found.get_by_text("Put it to the test")).to_have_count(0)
