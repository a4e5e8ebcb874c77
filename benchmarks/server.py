"""The workbench under load: 20 people at once on a warm index, nothing mixed up, memory steady.

    python benchmarks/server.py --index INDEX --queries FILE.jsonl [--users 20] [--requests 2000]
        [--pause 1.0] [--method NAME] [--browser /usr/bin/chromium] [--json FILE]

It starts `headwater serve` itself. Every user asks a question, reads for `--pause` seconds (drawn
evenly from half to one and a half of it), asks the next. The index is warm: the first question,
asked as soon as the server answers, is told apart, and after some seconds a few more go before
those that are measured. Times are of the whole request over HTTP, with its result, until its last
byte is there; every answer is compared with its question. Questions that were asked before come
from memory and are counted apart. With `--pause 0` it measures throughput. `--method` asks for
influence instead of lexical and verbatim evidence. `--browser` opens the first screen, too. A query
has `prompt` and `completion`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

TOKEN = "measured"  # the server is ours, and goes with this process
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
SETTLED = 10  # seconds in which a server that has started makes itself ready
WARM = 20  # questions before the others are measured


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--index", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--pause", type=float, default=1.0)
    parser.add_argument("--method")
    parser.add_argument("--browser")
    parser.add_argument("--json")
    return parser.parse_args()


class Served:
    """A server of our own, for the length of a `with`."""

    def __init__(self, index: str) -> None:
        words = [sys.executable, "-m", "headwater", "serve", index]
        words += ["--token", TOKEN, "--no-open", "--port", "0"]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        said = self.process.stderr
        assert said is not None
        found = None
        while found is None:
            line = said.readline()
            if not line:
                raise SystemExit("the server ended before it said where it is")
            found = re.search(r"(http://[^\s/]+)/\?token=", line)
        self.address = found[1]
        threading.Thread(target=said.read, daemon=True).start()  # so that it never waits for us

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.address}/api/", headers=HEADERS, timeout=600)

    @property
    def place(self) -> str:
        """Host and port, as a connection takes them."""
        return self.address.removeprefix("http://")

    def megabytes(self) -> float:
        """Resident memory of the server's process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


class Load:
    """Users who ask one after another until enough was asked."""

    def __init__(self, served: Served, name: str, rows: list[dict[str, Any]], args: Any) -> None:
        self.served, self.name, self.rows, self.args = served, name, rows, args
        self.seconds: list[float] = []
        self.again: list[float] = []  # of questions that were asked before
        self.wrong: list[str] = []
        self.memory: list[float] = []
        self._left = self._asked = 0
        self._lock = threading.Lock()

    def run(self, requests: int) -> float:
        """Ask so often, and return the seconds that all of it took."""
        self._left = requests
        users = [threading.Thread(target=self._user, args=(n,)) for n in range(self.args.users)]
        started = time.perf_counter()
        for user in users:
            user.start()
        for user in users:
            user.join()
        return time.perf_counter() - started

    def _user(self, number: int) -> None:
        """One person: a connection of its own, by the library that takes least of our own time."""
        chance = random.Random(number)
        client = http.client.HTTPConnection(self.served.place, timeout=600)
        with contextlib.closing(client):
            while True:
                time.sleep(chance.uniform(0.5, 1.5) * self.args.pause)
                with self._lock:
                    if self._left == 0:
                        return
                    self._left -= 1
                    self._asked += 1
                    place = self._asked - 1
                new = place < len(self.rows)
                self._ask(client, self.rows[place % len(self.rows)], new)

    def _ask(self, client: http.client.HTTPConnection, row: dict[str, Any], new: bool) -> None:
        said = {"prompt": row["prompt"], "completion": row["completion"]}
        asked: dict[str, Any] = {"kind": "ask", "index": self.name, "query": said}
        if self.args.method:
            asked["method"] = self.args.method
        else:
            asked["evidence"] = ["lexical", "verbatim"]
        body, headers = json.dumps(asked), {**HEADERS, "Content-Type": "application/json"}
        started = time.perf_counter()
        client.request("POST", "/api/jobs?wait=60", body, headers)
        response = client.getresponse()
        said_back = response.read()
        spent = time.perf_counter() - started
        told = json.loads(said_back)
        answer = (told.get("result") or {}).get("answer") or {}
        mine = (answer.get("prompt"), answer.get("completion"))
        with self._lock:
            (self.seconds if new else self.again).append(spent)
            if mine != (row["prompt"], row["completion"]):
                self.wrong.append(f"{response.status}: {str(told.get('error'))[:200]}")
            if (len(self.seconds) + len(self.again)) % 100 == 0:
                self.memory.append(self.served.megabytes())


def first_screen(served: Served, browser: str) -> dict[str, float]:
    """Seconds from asking for the page to a form that can be typed into: cold, then warm."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    found: dict[str, float] = {}
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=flags)
        page = chromium.new_page()
        for which in ("first", "again"):
            started = time.perf_counter()
            page.goto(f"{served.address}/?token={TOKEN}")
            page.get_by_role("textbox").first.wait_for()
            found[which] = time.perf_counter() - started
        chromium.close()
    return found


def main() -> None:
    args = arguments()
    rows = [json.loads(line) for line in Path(args.queries).read_text().splitlines()]
    with Served(args.index) as served:
        with served.client() as client:
            (index,) = client.get("session").raise_for_status().json()["indexes"]
        warm = argparse.Namespace(**{**vars(args), "pause": 0})
        warm.users = 1
        cold = Load(served, index["name"], rows[:1], warm)
        cold.run(1)
        time.sleep(SETTLED)
        Load(served, index["name"], rows[1:WARM], warm).run(WARM - 1)
        load = Load(served, index["name"], rows[WARM:], args)
        before = served.megabytes()
        spent = load.run(args.requests)
        screen = first_screen(served, args.browser) if args.browser else None
    times, again = sorted(load.seconds), sorted(load.again)
    result = {
        "passages": index["examples"],
        "evidence": args.method or "lexical + verbatim",
        "users": args.users,
        "pause_s": args.pause,
        "requests": len(times) + len(again),
        "first of all: ms": cold.seconds[0] * 1e3,
        "first asked": len(times),
        "wrong": len(load.wrong),
        "median_ms": statistics.median(times) * 1e3,
        "p95_ms": times[int(0.95 * (len(times) - 1))] * 1e3,
        "max_ms": times[-1] * 1e3,
        "asked before: median_ms": statistics.median(again) * 1e3 if again else None,
        "per_second": (len(times) + len(again)) / spent,
        "memory_mb": {"before": before, "each 100 requests": load.memory},
        "first_screen_s": screen,
    }
    print(json.dumps(result, indent=1))
    for line in load.wrong[:5]:
        print("wrong:", line)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
