"""A real `headwater serve` in a process of its own, and how it is stopped or killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

TOKEN = "token-of-the-browser-tests"


@dataclass
class Server:
    """A server that runs.

    Args:
        address: such as http://127.0.0.1:4711. said: lines of its standard error.
    """

    process: subprocess.Popen[str]
    address: str
    token: str
    said: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def first(self) -> str:
        """The address that the terminal shows."""
        return f"{self.address}/?token={self.token}"

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def kill(self) -> None:
        """kill -9: no time to write or to say anything."""
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        """As Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        finally:
            self.kill()


def start(words: Sequence[str], *, port: int = 0, token: str = TOKEN) -> Server:
    """`headwater serve` with these words; returns when it answers."""
    told = ["--port", str(port), "--token", token, "--no-open", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "headwater", "serve", *words, *told],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            found = re.search(r"(http://\S+)/\?token=", line)
            if found:
                server = Server(process, found[1], token, said)
                threading.Thread(target=said.extend, args=(process.stderr,), daemon=True).start()
                return server
        raise AssertionError(f"the server did not start: {''.join(said)}")
    except BaseException:  # a test that is broken off, too, leaves nothing behind
        process.kill()
        process.wait()
        raise
