"""Building from the command line: what is told, and that any interruption only costs time."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from commands import Command, rows, save_model, write_rows

from headwater.engine import files
from headwater.index.shard_job import ShardJob


def bytes_of(folder: Path) -> dict[str, bytes]:
    """What an index is made of: not locks, and not the views remembered beside it."""
    kept = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in kept
        if path.parent.name != "views"
    }


def test_a_build_tells_what_it_made(
    hw: Command, tmp_path: Path, model: Path, corpus: Path, built: Path
) -> None:
    out = tmp_path / "out"
    ended = hw("index", model, corpus, out, "--shard-rows", 5, "--json")
    assert ended.code == 0
    told = ended.json
    assert (told["documents"], told["complete"]) == (19, True)
    assert told["duplicates"]["duplicates"] == 1
    assert 0 < told["coverage"]["share"] < 1
    assert told["coverage"]["missing"]
    assert told["tokens_per_second"] > 0
    assert told["bytes"] == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert bytes_of(out) == bytes_of(built)
    again = hw("index", model, corpus, out, "--shard-rows", 5)
    assert again.code == 0
    assert "nothing left to do" in again.out


def test_the_table_names_coverage_skipped_and_duplicates(
    hw: Command, tmp_path: Path, model: Path
) -> None:
    values = [*rows(), {"text": ""}, {"text": 3}, {"text": rows()[1]["text"]}]
    bad = write_rows(tmp_path / "c.jsonl", values)
    ended = hw("index", model, bad, tmp_path / "out", "--skip-bad", "--column", "name=id")
    assert ended.code == 0, ended.err
    flat = " ".join(ended.out.split())
    assert "not attributed" in flat
    assert "skipped 2" in flat
    assert "1 repeat an earlier example" in flat
    assert "tokens/s" in flat


def test_ctrl_c_keeps_what_is_done(
    hw: Command, tmp_path: Path, model: Path, corpus: Path, built: Path, monkeypatch: Any
) -> None:
    out, done = tmp_path / "out", 0
    plain = ShardJob.run

    def once(job: ShardJob, *words: Any) -> None:
        nonlocal done
        if done == 2:
            raise KeyboardInterrupt
        done += 1
        plain(job, *words)

    with monkeypatch.context() as patch:
        patch.setattr(ShardJob, "run", once)
        ended = hw("index", model, corpus, out, "--shard-rows", 5)
    assert ended.code == 130
    assert "goes on where it was" in ended.err
    half = hw("inspect", out, "--json")
    assert (half.code, half.json["shards_done"], half.json["complete"]) == (0, 2, False)
    assert "not finished" in hw("ask", out, "a", " b").error
    assert hw("index", model, corpus, out, "--shard-rows", 5).code == 0
    assert bytes_of(out) == bytes_of(built)


def test_a_full_disk_stops_cleanly(
    hw: Command, tmp_path: Path, model: Path, corpus: Path, built: Path, monkeypatch: Any
) -> None:
    out, left = tmp_path / "out", 12
    plain = files.os.fsync

    def full(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        ended = hw("index", model, corpus, out, "--shard-rows", 5)
    assert ended.code == 7
    assert "disk is full" in ended.error
    assert not list(out.rglob("*.tmp"))
    assert hw("index", model, corpus, out, "--shard-rows", 5).code == 0
    assert bytes_of(out) == bytes_of(built)


def test_workers_share_the_shards(
    hw: Command, tmp_path: Path, model: Path, corpus: Path, built: Path
) -> None:
    out = tmp_path / "out"
    first = hw("index", model, corpus, out, "--shard-rows", 5, "--worker", "2/2", "--json")
    assert (first.code, first.json["complete"]) == (0, False)
    second = hw("index", model, corpus, out, "--shard-rows", 5, "--worker", "1/2", "--json")
    assert second.json["complete"]
    assert bytes_of(out) == bytes_of(built)


@pytest.mark.parametrize("worker", ["0/2", "3/2", "2", "a/b"])
def test_a_worker_out_of_range(hw: Command, tmp_path: Path, model: Path, worker: str) -> None:
    ended = hw("index", model, tmp_path / "none.jsonl", tmp_path / "out", "--worker", worker)
    assert ended.code == 2
    assert worker in ended.error
    assert not (tmp_path / "out").exists()


def test_append(hw: Command, tmp_path: Path, model: Path, index: Path) -> None:
    more = write_rows(tmp_path / "more.jsonl", [{"id": "new", "text": "Quito lies in Ecuador."}])
    ended = hw("index", model, more, index, "--append", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["documents"] == 20
    assert "already in the index" in hw("index", model, more, index, "--append").error


def test_features_as_asked(hw: Command, tmp_path: Path, model: Path, corpus: Path) -> None:
    ended = hw(
        *("index", model, corpus, tmp_path / "out", "--json", "--projection", "blocks:4x4"),
        *("--modules", "*.mlp.*", "--output", "margin", "--storage", "float16", "--seed", 7),
        *("--second-moment", "estimate", "--max-length", 32, "--bos", "--eos", "--budget", 64),
    )
    assert ended.code == 0, ended.err
    told = ended.json
    assert told["features"]["projection"] == {
        "kind": "LayerBlocks",
        "rows": 4,
        "columns": 4,
        "groups": 8,
    }
    assert told["coverage"]["modules"] == 6
    assert told["features"]["output"] == "margin"
    assert (told["features"]["storage"], told["features"]["seed"]) == ("float16", 7)
    assert told["calibration"]["second_moment"].startswith("estimated")
    assert told["task"]["max_length"] == 32
    assert told["task"]["bos"]
    assert told["task"]["eos"]
    assert told["budget"] == 64
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert all(".mlp." in name for name in manifest["parameters"])
    ended = hw("ask", tmp_path / "out", "The capital of Peru is", " Lima", "--method", "trak")
    assert ended.code == 0, ended.err


def test_columns_are_renamed(hw: Command, tmp_path: Path, model: Path) -> None:
    values = [{"body": row["text"], "from": row["source"]} for row in rows()]
    path = write_rows(tmp_path / "c.jsonl", values)
    words = ("--column", "text=body", "--column", "source=from")
    assert hw("index", model, path, tmp_path / "out", *words).code == 0
    asked = hw("rank", tmp_path / "out", "--by", "source", "--queries", _query(tmp_path), "--json")
    assert {row["name"] for row in asked.lines} == {row["source"] for row in rows()}


def _query(folder: Path) -> Path:
    return write_rows(
        folder / "q.jsonl", [{"prompt": "The capital of Peru is", "completion": " L"}]
    )


def test_other_things_on_an_existing_index(
    hw: Command, tmp_path: Path, model: Path, corpus: Path, index: Path
) -> None:
    other = save_model(tmp_path / "other", seed=1)
    ended = hw("index", other, corpus, index, "--shard-rows", 5)
    assert ended.code == 3
    assert "'model'" in ended.error
    ended = hw("index", model, corpus, index, "--seed", 3)
    assert ended.code == 3
    assert "'seed'" in ended.error
    ended = hw("index", model, corpus, index, "--max-length", 16)
    assert "'max_length'" in ended.error
    ended = hw("index", model, corpus, index, "--modules", "*.mlp.*")
    assert ended.code == 3
    changed = write_rows(tmp_path / "changed.jsonl", rows())
    ended = hw("index", model, changed, index, "--shard-rows", 5)
    assert ended.code == 3
    assert "corpus" in ended.error


def test_a_damaged_shard_is_named_and_rebuilt(
    hw: Command, model: Path, corpus: Path, index: Path, built: Path
) -> None:
    path = index / "features" / "00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    ended = hw("inspect", index)
    assert ended.code == 4
    assert "features/00001.safetensors" in ended.error
    ended = hw("index", model, corpus, index, "--shard-rows", 5)
    assert ended.code == 0
    assert "00001" in ended.err
    assert bytes_of(index) == bytes_of(built)
    assert hw("inspect", index).code == 0


def test_a_missing_shard_is_named_when_asked(hw: Command, index: Path) -> None:
    (index / "features" / "00002.safetensors").unlink()
    ended = hw("ask", index, "The capital of Peru is", " Lima")
    assert ended.code == 4
    assert "00002" in ended.error


def test_a_newer_format(hw: Command, index: Path) -> None:
    manifest = json.loads((index / "manifest.json").read_text())
    (index / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    for words in (("ask", index, "a", " b"), ("inspect", index)):
        ended = hw(*words)
        assert ended.code == 3
        assert "newer format" in ended.error
