"""A page that is watched: what it asks for and complains of; and the ways that all tests go."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from playwright.sync_api import Locator, Page, expect

from browser.world import COMPLETION, PROMPT

OWN = ("data:", "blob:", "about:")
SLOW = 60_000  # milliseconds: for what a model does on a busy machine
CALLED = "() => window.pwned === undefined"


class Watch:
    """Everything that a page does which it should not.

    Args:
        allowed: beginnings of addresses it may ask for.
    """

    def __init__(self, page: Page, *allowed: str) -> None:
        self.page, self.allowed = page, allowed
        self.wrong: list[str] = []
        self._meant: list[str] = []
        page.on("request", self._asked)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("popup", lambda other: self.wrong.append(f"a new page: {other.url}"))

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((*self.allowed, *OWN)):
            self.wrong.append(f"asked for {request.url}")

    def _said(self, message: Any) -> None:
        ours = message.type == "warning" and "svelte" in message.text
        if message.type == "error" or ours:
            self.wrong.append(f"{message.type}: {message.text} at {message.location['url']}")

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def expect(self, pattern: str) -> None:
        """Complaints of this kind are meant to come."""
        self._meant.append(pattern)

    def check(self) -> None:
        """Nothing was asked of elsewhere, nothing failed, nothing of a text was run."""
        meant = "|".join(self._meant) or "$^"
        wrong = [one for one in self.wrong if not re.search(meant, one)]
        assert not wrong, "\n".join(wrong)
        if not self.page.is_closed():
            assert self.page.evaluate(CALLED), "a text was run"


def link(**values: str) -> str:
    """A screen's address, after the server's: values as the app puts them there."""
    return f"/#{urlencode(values, quote_via=quote)}"


def values(page: Page) -> dict[str, str]:
    """What the address says."""
    found = parse_qs(urlsplit(page.url).fragment)
    return {name: one for name, (one,) in found.items()}


def visit(page: Page, view: str, **more: str) -> None:
    """Open a view by its link."""
    place = urlsplit(page.url)
    page.goto(f"{place.scheme}://{place.netloc}{link(view=view, **more)}")


def visit_asked(page: Page, view: str, **more: str) -> None:
    """Open a view by its link, with the query that most tests use."""
    query = {"index": "facts", "prompt": PROMPT, "completion": COMPLETION}
    visit(page, view, **{**query, **more})


def answer(page: Page) -> Locator:
    """The answer, when it is there."""
    found = page.get_by_role("region", name="Answer")
    failed = page.get_by_role("alert")
    expect(found.or_(failed).first).to_be_visible(timeout=SLOW)
    assert found.is_visible(), failed.all_inner_texts()
    return found


def question(page: Page, prompt: str = PROMPT, completion: str = COMPLETION) -> None:
    """Type a question; the words of the output can be picked then."""
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    if words(page).is_visible():
        page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Output").fill(completion)
    page.get_by_role("textbox", name="Prompt").focus()
    expect(words(page)).to_be_visible()


def words(page: Page) -> Locator:
    return page.get_by_role("listbox", name="Words of the output")


def ask(page: Page) -> Locator:
    page.get_by_role("button", name="Where did it get this?").click()
    return answer(page)


def choose_view(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Views").get_by_role("button", name=name).click()


def taken(page: Page, button: Locator) -> tuple[str, bytes]:
    """The file that a button saves: its name and what is in it."""
    with page.expect_download(timeout=SLOW) as waiting:
        button.click()
    download = waiting.value
    path = download.path()
    return download.suggested_filename, path.read_bytes()
