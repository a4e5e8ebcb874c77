"""kill -9 amid a query and a build: the page says so, and all goes on when the server is back."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from browser import serving
from browser.screen import SLOW, Watch, answer, ask, question, visit
from browser.world import World
from headwater.cli.app import run
from headwater.corpus.corpus import Corpus
from headwater.index.index import Index
from headwater.tasks.texts import Texts

MANY = 8000  # examples: to read them all for a build takes a second
NEEDLE = "the one of these that is looked for"


@contextmanager
def served(*indexes: Path, port: int = 0) -> Iterator[serving.Server]:
    """A server that ends here, whatever happens."""
    running = serving.start([str(one) for one in indexes], port=port)
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """An index in which nothing is built yet that evidence needs."""
    chance = Random(0)
    words = ["".join(chance.choices("abcdefghijklmnop", k=5)) for _ in range(3000)]
    rows = [{"id": str(n), "text": " ".join(chance.choices(words, k=60))} for n in range(MANY)]
    rows[MANY - 1]["text"] = f"Here stands {NEEDLE}, at the end."
    Index.build(tmp_path / "many", Texts(), Corpus.from_documents(rows), None)
    return tmp_path / "many"


def stored(*folders: Path) -> dict[Path, str]:
    """A checksum of every file."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start_building(server: serving.Server, index: Path) -> None:
    """Ask what needs a build; returns amid it."""
    asked = {
        "kind": "ask",
        "index": index.name,
        "query": {"prompt": "", "completion": NEEDLE},
        "evidence": ["verbatim", "lexical"],
    }
    with httpx.Client(base_url=server.address, headers=server.bearer, timeout=60) as client:
        job = client.post("/api/jobs", json=asked).json()["id"]
        told: list[str] = []
        with client.stream("GET", f"/api/jobs/{job}/events") as events:
            for line in events.iter_lines():
                told.append(line)
                if '"label": "lexical"' in line:
                    return
    raise AssertionError(f"nothing is built: {told}")


def start_query(page: Page) -> None:
    """Ask what cannot end soon."""
    question(page)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("How uncertain").fill("40")
    with page.expect_response("**/api/jobs"):
        page.get_by_role("button", name="Where did it get this?").click()
    expect(page.get_by_role("progressbar").first).to_be_visible()


def test_a_killed_server_loses_nothing(
    made: World,
    many: Path,
    context: BrowserContext,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    index = Path(shutil.copytree(made.index, tmp_path / "facts"))
    before = stored(index, many)
    page = context.new_page()
    with ExitStack() as running:
        first = running.enter_context(served(index, many))
        watching = Watch(page, first.address)
        page.goto(first.first)
        start_query(page)
        start_building(first, many)
        watching.expect("ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|status of 404")
        first.kill()
        assert any((many / "verbatim").iterdir())
        assert not list((many / "lexical").glob("*/record.json"))  # the build had not ended
        assert before.items() <= stored(index, many).items()
        second = running.enter_context(served(index, many, port=first.port))
        failed = page.get_by_role("alert")
        expect(failed).to_contain_text("connection to the server was lost", timeout=SLOW)
        # The same page goes on, with the cookie that it has.
        page.get_by_label("How uncertain").fill("0")
        expect(ask(page).get_by_role("article").first).to_contain_text("Peru")
        expect(failed).to_have_count(0)
        fresh = context.new_page()
        fresh.goto(second.first)
        fresh.goto(page.url)
        expect(answer(fresh)).to_contain_text("Lima")
        # What was half built is built, and finds what it should.
        visit(page, "ask", index="many", prompt="", completion=NEEDLE)
        expect(answer(page).get_by_role("article").first).to_contain_text("Here stands")
        watching.check()
    assert before.items() <= stored(index, many).items()
    for one in (index, many):
        capsys.readouterr()
        assert run(["inspect", str(one)]) == 0
        assert "damage" not in capsys.readouterr().out.lower()
