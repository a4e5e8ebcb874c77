"""Files are whole or not there; a lock dies with its process; names stay inside their folder."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headwater.engine import files
from headwater.engine.errors import BusyError, DamageError, InputError, ResourceError
from headwater.engine.files import (
    checksum,
    inside,
    locked,
    read_json,
    sweep,
    write_atomic,
    write_json,
)


def text(content: str) -> Any:
    return lambda path: path.write_text(content)


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_atomic(path, text("one"))
    write_atomic(path, text("two"))
    assert path.read_text() == "two"
    assert os.listdir(path.parent) == ["c.txt"]


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (ValueError("of its own"), ValueError),
        (Interrupted(), Interrupted),
        (OSError(errno.ENOSPC, "No space left on device"), ResourceError),
        (OSError(errno.EDQUOT, "Quota exceeded"), ResourceError),
        (RuntimeError("arrow: No space left on device"), ResourceError),
        (OSError(errno.EACCES, "Permission denied"), InputError),
    ],
)
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, failure: BaseException, raised: type[BaseException]
) -> None:
    path = tmp_path / "c.txt"
    write_atomic(path, text("one"))

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise failure

    with pytest.raises(raised) as caught:
        write_atomic(path, fail)
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["c.txt"]
    if raised in (ResourceError, InputError):
        assert "c.txt" in str(caught.value)
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("step", ["fsync", "replace", "mkdir"])
def test_no_space_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / ("new/c.txt" if step == "mkdir" else "c.txt")
    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    with pytest.raises(ResourceError, match=r"disk is full.*Free some space"):
        write_atomic(path, text("one"))
    monkeypatch.undo()
    assert not path.exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_data_reaches_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Synced, then renamed, then the folder synced: what a power cut finds is whole."""
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("sync"), sync(handle)))
    monkeypatch.setattr(
        Path, "replace", lambda self, target: (steps.append("rename"), replace(self, target))
    )
    write_atomic(tmp_path / "c.txt", text("one"))
    assert steps == ["sync", "rename", "sync"]


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    kept = ["a.json", ".lock", "b.json.7.tmp", ".b.json.7.tmp", ".ab.json.7.tmp"]
    for name in [*kept, ".a.json.12.tmp", ".a.json.345.tmp"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / ".tmpS9KnvQ").touch()  # a writer's own temporary file
    sweep(tmp_path, "a.json")
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept[:3])
    sweep(tmp_path / "missing")


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": {"ü": "→", "c": True}}
    write_json(tmp_path / "1", value)
    write_json(tmp_path / "2", {name: value[name] for name in ("a", "b")})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert read_json(tmp_path / "1") == value
    assert "ü" in (tmp_path / "1").read_text(encoding="utf-8")


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(InputError, match=r"x\.json cannot be read"):
        read_json(path)
    for data in (b"", b"{", b"\xff\xfe{}", b"[1,"):
        path.write_bytes(data)
        with pytest.raises(DamageError, match=r"x\.json is damaged; expected JSON"):
            read_json(path)


def test_a_checksum_is_sha256(tmp_path: Path) -> None:
    data = os.urandom(3 << 20) * 2  # longer than what is read at a time
    (tmp_path / "x").write_bytes(data)
    assert checksum(tmp_path / "x") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", ["a", "a/b.txt", "./a", "a/../b", "new/er"])
def test_names_inside(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) == (tmp_path / name).resolve()


@pytest.mark.parametrize("name", ["..", "../x", "/etc/passwd", "a/../../x", "link/x", "link"])
def test_names_that_lead_outside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (tmp_path / "index2").mkdir()
    with pytest.raises(DamageError, match="outside its folder"):
        inside(folder, name)
    with pytest.raises(DamageError):
        inside(folder, "../index2/x")  # begins with the same letters


def test_a_lock_keeps_others_out_and_goes_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "done" / ".lock"
    with locked(path, "Shard 7"):
        with (
            pytest.raises(BusyError, match=r"Shard 7 is being written.*--worker"),
            locked(path, "Shard 7"),
        ):
            pass
        with locked(tmp_path / "done" / ".other", "Shard 8"):
            pass
    with locked(path, "Shard 7"):
        pass
    with pytest.raises(KeyError), locked(path, "Shard 7"):
        raise KeyError
    with locked(path, "Shard 7"):
        pass


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom headwater.engine.files import locked\n"
        "with locked(Path(sys.argv[1]), 'x'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BusyError), locked(path, "x"):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with locked(path, "x"):
        pass


def test_a_lock_where_nothing_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file" / "x", "y"):
        pass


def test_threads_write_one_file_each_on_their_own(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write_json(path, {"n": number}), range(100)))
    assert "n" in read_json(path)
    assert [one.name for one in tmp_path.iterdir()] == ["one.json"]


def test_a_file_that_lay_still_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the same size in its place, or one just written, is not taken for it."""
    path = tmp_path / "bytes"
    path.write_bytes(b"first")
    first = hashlib.sha256(b"first").hexdigest()
    assert checksum(path) == first  # written just now: not remembered
    monkeypatch.setattr(files, "STILL", 0)
    time.sleep(0.05)  # the file system's clock goes in steps
    assert checksum(path) == first
    with monkeypatch.context() as patched:
        patched.setattr(files.hashlib, "sha256", None)
        assert checksum(path) == first
    path.write_bytes(b"other")
    assert checksum(path) == hashlib.sha256(b"other").hexdigest()
