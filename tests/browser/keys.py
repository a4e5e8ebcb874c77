"""Ways by the Tab key: to a control, or over all, with the focus to be seen at every stop."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page, expect

from browser.screen import SLOW

MOST = 250  # stops of one screen
# Where the focus is, and what is wrong with how it is shown there; `there` is at `wanted`.
STOP = """wanted => {
    const at = document.activeElement;
    if (!at || at === document.body) return { there: false, name: '', wrong: null };
    // A control that is itself unseen (a file to choose) shows its focus on its label.
    const shown = [at, at.closest('label')].filter((one) => one !== null);
    const drawn = shown.some((one) => {
        const style = getComputedStyle(one);
        return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
    });
    const boxes = shown.map((one) => one.getBoundingClientRect());
    const room = document.documentElement;
    const inside = boxes.some((box) => box.width > 4 && box.height > 4
        && box.bottom > 0 && box.right > 0
        && box.top < room.clientHeight && box.left < room.clientWidth);
    const wrong = !drawn ? 'is not shown' : !inside ? 'is out of sight' : null;
    const name = at.outerHTML.slice(0, 160);
    return { there: at === wanted, name, wrong: wrong && `the focus ${wrong} on ${name}` };
}"""
# What can be used by mouse and is no stop of the Tab key, nor within one, nor moved to by arrows.
UNREACHED = """() => {
    const stop = 'a[href], button, input, select, textarea, summary, label, option, [tabindex]';
    // In these, arrows move; what a picture offers, the table beside it offers as well.
    const many = '[role=listbox], [role=application], [role=radiogroup], [role=img]';
    // Programs may put the focus on more (a heading, a card), but that is no control.
    const control = 'a, button, input, select, textarea, summary, [role=option], [role=button]';
    const seen = (one) => one.checkVisibility({ visibilityProperty: true });
    const found = [...document.querySelectorAll('body *')].filter((one) => {
        if (!seen(one) || one.disabled) return false;
        if (getComputedStyle(one).cursor === 'pointer' && !one.closest(stop))
            return !one.closest(many);
        if (!one.matches(control) || one.tabIndex >= 0) return false;
        const group = one.closest(many);
        return !group || !(group.tabIndex >= 0 || group.querySelector('[tabindex="0"]'));
    });
    return found.map((one) => one.outerHTML.slice(0, 160));
}"""


def press_tab(page: Page, wanted: Locator | None = None) -> dict[str, Any]:
    """One Tab further."""
    page.keyboard.press("Tab")
    return page.evaluate(STOP) if wanted is None else wanted.evaluate(STOP)


def reach(page: Page, wanted: Locator) -> None:
    """Tab until the focus is on it."""
    expect(wanted).to_be_visible(timeout=SLOW)
    passed: list[str] = []
    for _ in range(MOST):
        stop = press_tab(page, wanted)
        assert stop["wrong"] is None, stop["wrong"]
        if stop["there"]:
            return
        passed.append(stop["name"])
    raise AssertionError(f"Tab does not lead to {wanted}, but to:\n" + "\n".join(passed))


def enter(page: Page, wanted: Locator) -> None:
    """Tab to a control, and Enter."""
    reach(page, wanted)
    page.keyboard.press("Enter")


def wrong_stops(page: Page) -> list[str]:
    """Stops of the Tab key on which the focus is not to be seen; each stop once."""
    page.evaluate("() => document.activeElement?.blur()")
    wrong: list[str] = []
    for number in range(MOST):
        stop = press_tab(page)
        if stop["wrong"] is not None:
            wrong.append(stop["wrong"])
        if number and not stop["name"]:  # past the last one
            return wrong
    return [*wrong, f"more than {MOST} stops, or a place that Tab does not leave"]
