"""The figures on the pages are those of the files that commands wrote."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_block_says_what_its_file_holds(tables: ModuleType) -> None:
    for page in tables.pages():
        text = page.read_text(encoding="utf-8")
        assert tables.rendered(text) == text, f"{page.name}: run python benchmarks/tables.py"


def test_every_file_of_results_stands_on_a_page(tables: ModuleType) -> None:
    shown = {
        name
        for page in tables.pages()
        for _, name, _ in tables.BLOCK.findall(page.read_text(encoding="utf-8"))
    }
    assert {path.name for path in tables.RESULTS.glob("*.json")} == shown


def test_a_changed_figure_is_noticed(tables: ModuleType) -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    changed = page.replace("| step | 2413 |", "| step | 2414 |")
    assert changed != page
    assert tables.rendered(changed) == page


def test_no_measured_figure_stands_outside_a_block(tables: ModuleType) -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", tables.BLOCK.sub("", text), flags=re.DOTALL)
    allowed = re.compile(
        r"torch==[\d.]+|bergson==[\d.]+|(?:bm25s|infini-gram|kronfluence|traker|dattri) [\d.]+"
    )
    assert re.findall(r"[^\n]*\d\.\d[^\n]*", allowed.sub("", prose)) == []
