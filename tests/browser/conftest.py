"""One small world, one server and one browser for all browser tests; a fresh page for each.

Where there is no browser the tests that need one are skipped, and the end of the run says what to
install; those that need none run everywhere. An interface that is not built is a failure.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from browser import serving, world
from browser.needed import ASSETS, lacking, missing, not_built

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from browser.screen import Watch

PATIENCE = 30_000  # milliseconds, on a busy machine; a fast one does not wait
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A name that somebody else owns and lets mean this machine; no other name means anything.
    "--host-resolver-rules=MAP rebound.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tests that did not run must not pass in silence: one line says why."""
    for told in missing:
        terminalreporter.write_line(f"browser tests were skipped: {told}", yellow=True)


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> world.World:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="package")
def server(made: world.World) -> Iterator[serving.Server]:
    running = serving.start(made.words)
    try:
        yield running
    finally:
        running.stop()
    assert not any("Traceback" in line for line in running.said), "".join(running.said)


@pytest.fixture(scope="package")
def assets() -> Path:
    """The built interface."""
    wanted = [ASSETS / "app" / "index.html", ASSETS / "report.html", ASSETS / "widget.js"]
    if not all(one.is_file() for one in wanted):
        not_built("the interface is not built", "build it with `make web`")
    return ASSETS


@pytest.fixture(scope="package")
def browser(assets: Path) -> Iterator[Browser]:
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        lacking("there is no Chromium", "install it with `apt-get install chromium`")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield running
        finally:
            running.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    fresh = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    fresh.set_default_timeout(PATIENCE)
    yield fresh
    fresh.close()


@pytest.fixture
def watch(context: BrowserContext, server: serving.Server) -> Iterator[Watch]:
    """A page of which everything is noted; at the end nothing wrong may be among it."""
    from browser.screen import Watch

    watching = Watch(context.new_page(), f"{server.address}/")
    yield watching
    watching.check()


@pytest.fixture
def page(watch: Watch, server: serving.Server) -> Page:
    """The app, opened by the address that the terminal shows; it is watched."""
    watch.page.goto(server.first)
    return watch.page
