"""Starting is quick: what is heavy is imported by the command that needs it."""

from __future__ import annotations

import subprocess
import sys
import time

import headwater

HEAVY = ("torch", "transformers", "pyarrow", "datasets", "numpy", "scipy")
ASK = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"


def python(code: str) -> tuple[str, float]:
    started = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return ended.stdout, time.perf_counter() - started


def test_import_is_light() -> None:
    out, seconds = python(f"import headwater; {ASK}")
    assert out.strip() == ""
    assert seconds < 2  # a twentieth of it on a quiet machine


def test_help_is_light() -> None:
    out, seconds = python(f"from headwater.cli.app import run; run(['--help']); {ASK}")
    assert "inspect" in out
    assert out.splitlines()[-1] == ""
    assert seconds < 4


def test_version() -> None:
    code = "import sys; from headwater.cli import main; main(['--version'])"
    assert python(code)[0].strip() == f"headwater {headwater.__version__}"
