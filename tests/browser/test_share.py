"""What leaves the app: a link without secrets, Markdown, files that open elsewhere, the command."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from browser.screen import Watch, answer, choose_view, taken, visit_asked
from browser.serving import Server
from browser.world import COMPLETION, PROMPT
from headwater.cli.app import run


@pytest.fixture
def menu(page: Page) -> Locator:
    """The open menu of the answer that most tests ask for."""
    visit_asked(page, "ask", by="country", method="logra", evidence="influence")
    answer(page).get_by_role("button", name="Share", exact=True).click()
    return page.locator(".share")


def clipboard(page: Page) -> str:
    return page.evaluate("() => navigator.clipboard.readText()")


def test_a_link_holds_the_screen_and_no_token(
    menu: Locator, page: Page, context: BrowserContext, server: Server
) -> None:
    assert server.token not in page.url
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.address)
    menu.get_by_role("button", name="Copy link").click()
    expect(menu.get_by_role("status").last).to_have_text("Link copied")
    copied = clipboard(page)
    assert copied.startswith(f"{server.address}/#")
    assert server.token not in copied
    other = context.new_page()
    watching = Watch(other, server.address)
    other.goto(copied)
    expect(answer(other)).to_contain_text("LoGra")
    expect(other.get_by_label("Method of influence")).to_have_value("logra")
    watching.check()
    other.close()  # a page behind another one is drawn once a second
    menu.get_by_role("button", name="Copy as Markdown").click()
    expect(menu.get_by_role("status").last).to_have_text("Markdown copied")
    told = clipboard(page)
    assert "| 1 | +" in told
    assert server.token not in told
    # Every screen has its link.
    for name in ("Compare", "Groups", "Map"):
        choose_view(page, name)
        page.get_by_role("button", name="Share", exact=True).click()
        page.get_by_role("button", name="Copy link").click()
        expect(page.get_by_text("Link copied")).to_be_visible()
        assert f"view={name.lower()}" in clipboard(page)
        assert server.token not in clipboard(page)


def test_files_hold_the_answer(menu: Locator, page: Page) -> None:
    name, content = taken(page, menu.get_by_role("button", name="JSON (all"))
    told = json.loads(content)
    assert name == "the-capital-of-peru-is-lima.json"
    assert (told["prompt"], told["completion"]) == (PROMPT, COMPLETION)
    _, content = taken(page, menu.get_by_role("button", name="CSV"))
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert {told["proponents"][0]["id"], told["opponents"][0]["id"]} <= {row["id"] for row in rows}
    _, content = taken(page, menu.get_by_role("button", name="PAIR"))
    (line,) = [json.loads(one) for one in content.splitlines()]
    assert line["inputs_plaintext"] == PROMPT
    assert line["proponent_ids"] == [one["id"] for one in told["proponents"]]
    _, content = taken(page, menu.get_by_role("button", name="SVG"))
    picture = ElementTree.fromstring(content)
    assert picture.tag.endswith("svg")
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}rect"))) > 5
    assert b"class=" not in content


def test_one_html_file_opens_offline(menu: Locator, page: Page, tmp_path: Path) -> None:
    name, content = taken(page, menu.get_by_role("button", name="HTML"))
    path = tmp_path / name
    path.write_bytes(content)
    page.context.set_offline(True)
    alone = page.context.new_page()
    watching = Watch(alone, path.as_uri())
    alone.goto(path.as_uri())
    shown = answer(alone)
    expect(shown).to_contain_text("LoGra")
    expect(shown.get_by_role("article").first).to_contain_text("Peru")
    # What only a server can do is absent, not broken.
    for absent in ("Document", "To the list", "Test"):
        expect(shown.get_by_role("button", name=absent)).to_have_count(0)
    shown.get_by_role("button", name="Word by word").first.click()
    expect(shown.get_by_role("article").first).to_contain_text("splits over the words")
    watching.check()


def test_the_command_gives_the_same_answer(
    menu: Locator, page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    command, python = menu.locator("pre").all_inner_texts()
    assert python.startswith("hw.ask(")
    first = answer(page).get_by_role("article").first.get_attribute("data-example")
    program, *words = shlex.split(command)
    assert program == "headwater"
    capsys.readouterr()
    assert run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["proponents"][0]["id"] == first
