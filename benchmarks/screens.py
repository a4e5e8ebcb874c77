"""Pictures of the workbench's main screens, for the docs.

    python benchmarks/screens.py --index INDEX --prompt TEXT --completion TEXT --out docs/screens
        [--boards FOLDER] [--query-sets FILE] [--browser /usr/bin/chromium]

It starts `headwater serve` itself and opens each view with the question, as a link would: 1280
pixels wide, as high as a window. Widths of letters differ between machines, and so do pictures.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

TOKEN = "pictured-here"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@dataclass
class Screen:
    """A view, what is done there before the picture, and how the window is."""

    name: str
    view: str
    more: dict[str, str]
    press: str | None = None
    width: int = 1280
    height: int = 900
    dark: bool = False
    to: str | None = None  # scrolled to this text


def screens() -> list[Screen]:
    return [
        Screen("ask", "ask", {}),
        Screen("ask-dark", "ask", {}, dark=True),
        Screen("ask-narrow", "ask", {}, width=390),
        Screen("words", "ask", {}, press="Word by word", to="Evidence"),
        Screen("compare", "compare", {"with": "method", "method_b": "logra"}),
        Screen("groups", "groups", {"method": "graddot", "by": "country"}, height=700),
        Screen("map", "map", {}),
        Screen("queries", "queries", {}, height=700),
        Screen("board", "board", {}),
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--index", required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--completion", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--boards")
    parser.add_argument("--query-sets")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    return parser.parse_args()


def serve(args: argparse.Namespace) -> tuple[subprocess.Popen[str], str]:
    """The server's process and its address."""
    words = [sys.executable, "-m", "headwater", "serve", args.index]
    words += ["--token", TOKEN, "--no-open", "--port", "0"]
    for flag, given in (("--boards", args.boards), ("--query-sets", args.query_sets)):
        words += [flag, given] if given else []
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    said = process.stderr
    assert said is not None
    for line in said:
        found = re.search(r"(http://[^\s/]+)/\?token=", line)
        if found:
            threading.Thread(target=said.read, daemon=True).start()
            return process, found[1]
    raise SystemExit("the server ended before it said where it is")


def take(browser: Any, address: str, screen: Screen, args: argparse.Namespace) -> None:
    from playwright.sync_api import expect

    context = browser.new_context(
        viewport={"width": screen.width, "height": screen.height},
        color_scheme="dark" if screen.dark else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(f"{address}/?token={TOKEN}")
    query = {"view": screen.view, "prompt": args.prompt, "completion": args.completion}
    if screen.view == "queries" and args.query_sets:
        query["set"] = Path(args.query_sets).name.removesuffix(".jsonl")
    page.goto(f"{address}/#{urlencode({**query, **screen.more})}")
    page.reload()
    page.wait_for_load_state("networkidle")
    expect(page.locator("progress, [role=progressbar]")).to_have_count(0, timeout=60_000)
    page.wait_for_timeout(1500)  # what is drawn after it has come
    if screen.press:
        page.get_by_role("button", name=screen.press).first.click()
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(1500)
    if screen.to:
        page.get_by_text(screen.to, exact=True).first.scroll_into_view_if_needed()
        page.evaluate("scrollBy(0, 300)")
    page.screenshot(path=args.out / f"{screen.name}.png")
    context.close()


def main() -> None:
    from playwright.sync_api import sync_playwright

    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    process, address = serve(args)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=args.browser, args=FLAGS)
            for screen in screens():
                take(browser, address, screen, args)
                size = (args.out / f"{screen.name}.png").stat().st_size
                print(f"{screen.name}.png  {size / 1000:.0f} kB")
            browser.close()
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
