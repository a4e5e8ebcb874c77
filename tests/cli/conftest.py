"""A model folder, a corpus and an index made once, and the command line run in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from commands import Command, Ended, rows, save_model, write_rows

from headwater.cli.app import run


@pytest.fixture
def hw(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`headwater` with these words, in a window so wide that no path breaks a sentence."""
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words: object) -> Ended:
        capsys.readouterr()
        code = run([str(word) for word in words])
        taken = capsys.readouterr()
        return Ended(code, taken.out, taken.err)

    return command


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    again = {**rows()[0], "id": "Peru-again"}
    return write_rows(tmp_path_factory.mktemp("corpus") / "facts.jsonl", [*rows(), again])


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, model: Path, corpus: Path) -> Path:
    """A finished index of four shards; not to be changed."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("index") / "index"
    assert run(["index", str(model), str(corpus), str(out), "--shard-rows", "5", "--json"]) == 0
    return out


@pytest.fixture
def index(tmp_path: Path, built: Path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(built, tmp_path / "copy"))
