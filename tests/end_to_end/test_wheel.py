"""A wheel holds the built interface, and is refused without it; so is an sdist."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASSETS = ("app/index.html", "app/assets/index-x.js", "report.html", "widget.js")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a build reads of the project, with an interface of a few bytes."""
    folder = tmp_path / "clone"
    ours = shutil.ignore_patterns("__pycache__", "assets", "node_modules")
    for name in ("src", "web", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=ours)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    for name in ASSETS:
        place = folder / "src" / "headwater" / "assets" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("built")
    return folder


def built(clone: Path, *what: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "build", "--no-isolation", *what, str(clone)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)


def test_wheel_and_sdist_hold_the_interface(clone: Path) -> None:
    (clone / "web" / "node_modules").mkdir()
    (clone / "web" / "node_modules" / "x.js").write_text("not ours")
    ended = built(clone, "--wheel", "--sdist")
    assert ended.returncode == 0, ended.stderr[-2000:]
    (wheel,) = (clone / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"headwater/assets/{name}" for name in ASSETS} <= set(names)
    assert "headwater/py.typed" in names
    (sdist,) = (clone / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/headwater/assets/{name}" for name in ASSETS} <= inside
    assert {"web/package-lock.json", "web/src/App.svelte", "hatch_build.py"} <= inside
    assert not any("node_modules/" in name for name in inside)


@pytest.mark.parametrize("what", ["--wheel", "--sdist"])
def test_without_the_interface_there_is_none(clone: Path, what: str) -> None:
    (clone / "src" / "headwater" / "assets" / "widget.js").unlink()
    ended = built(clone, what)
    assert ended.returncode != 0
    assert "widget.js" in ended.stderr + ended.stdout
    assert "make web" in ended.stderr + ended.stdout
    assert not list((clone / "dist").glob("*"))
