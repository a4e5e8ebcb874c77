"""kill -9 in the midst of a query: the page says so, and all goes on when the server is back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from browser import serving
from browser.screen import SLOW, Watch, answer, ask, question
from browser.world import World
from headwater.cli.app import run


def test_a_killed_server_loses_nothing(
    made: World, context: BrowserContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = Path(shutil.copytree(made.index, tmp_path / "facts"))
    shutil.rmtree(index / "verbatim", ignore_errors=True)  # to be built by the query
    first = serving.start([str(index)])
    page = context.new_page()
    watching = Watch(page, first.address)
    try:
        page.goto(first.first)
        question(page)
        page.get_by_text("More", exact=True).click()
        page.get_by_label("How uncertain").fill("40")  # so long that it cannot end before
        with page.expect_response("**/api/jobs"):
            page.get_by_role("button", name="Where did it get this?").click()
        expect(page.get_by_role("progressbar").first).to_be_visible()
        watching.expect("ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|status of 404")
        first.kill()
        second = serving.start([str(index)], port=first.port)
        failed = page.get_by_role("alert")
        expect(failed).to_contain_text("connection to the server was lost", timeout=SLOW)
    finally:
        first.kill()
    try:
        # The same page goes on, with the cookie that it has.
        page.get_by_label("How uncertain").fill("0")
        found = ask(page)
        expect(found.get_by_role("article").first).to_contain_text("Peru")
        expect(failed).to_have_count(0)
        fresh = context.new_page()
        fresh.goto(second.first)
        fresh.goto(page.url)
        expect(answer(fresh)).to_contain_text("Lima")
        watching.check()
    finally:
        second.stop()
    capsys.readouterr()
    assert run(["inspect", str(index)]) == 0
    assert "damage" not in capsys.readouterr().out.lower()
