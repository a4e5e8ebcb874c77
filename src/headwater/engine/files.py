"""Files that are either whole or not there: written beside, synced, renamed; checked by hash.

Disk errors become one clear line, and a lock that dies with its process keeps writers apart.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from headwater.engine.errors import BusyError, DamageError, InputError, ResourceError

STILL = 1_000_000_000  # nanoseconds in which a change may not be told by the clock

_known: dict[tuple[int, ...], str] = {}  # checksums of files as they were when they were read
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, then put it in place of `path` in one step.

    The file is written in a folder of its own, since writers may make temporary files themselves;
    whatever a killed one leaves is below `.<name>.<process and thread>.tmp`, and `sweep` finds it.

    Raises:
        ResourceError: when the disk is full; the temporary file is gone then.
    """
    make_folder(path.parent)
    room = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    temporary = room / path.name
    try:
        room.mkdir(exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise disk_error(path, error) from error
    except BaseException as error:
        found = _OS_ERROR.search(str(error))  # safetensors raises errors of its own
        if found or "No space left" in str(error):
            number = int(found[1]) if found else errno.ENOSPC
            raise disk_error(path, OSError(number, os.strerror(number))) from error
        raise
    finally:
        shutil.rmtree(room, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make the folder and those above it; raises InputError or ResourceError where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(path, error) from error


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of `folder / name` left; only for who holds their lock."""
    for path in folder.glob(f".{name}.*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def disk_error(path: Path, error: OSError) -> ResourceError | InputError:
    """The one line for an `OSError` met while writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            f"The disk is full; {path} was not written, what was finished before is kept",
            do="free some space and run the same command again: it goes on where it stopped",
        )
    return InputError(f"{path} cannot be written", found=error.strerror or str(error))


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys, so that equal values are equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Raises DamageError when the file is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise DamageError(f"{path} is damaged", expected="JSON", found=str(error)) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read", found=error.strerror) from error


def checksum(path: Path) -> str:
    """SHA-256 of the file's bytes, hexadecimal.

    A file that has not changed since this process last read it is not read again. The clock that
    tells is coarse, so this is said of no file that was written in the last second.
    """
    with path.open("rb") as file:
        state = _state(file)
        if state in _known:
            return _known[state]
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
        if _state(file) == state and time.time_ns() - state[-1] > STILL:
            _known[state] = digest.hexdigest()
    return digest.hexdigest()


def _state(file: IO[bytes]) -> tuple[int, ...]:
    """What changes with the file's bytes."""
    found = os.fstat(file.fileno())
    times = (found.st_ctime_ns, found.st_mtime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times, max(times))


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused when it leads out of the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DamageError(
            "A manifest names a file outside its folder", expected=f"below {folder}", found=name
        )
    return path


@contextmanager
def locked(path: Path, what: str, *, wait: bool = False) -> Generator[None]:
    """Hold the lock file `path`; it is released even when the process dies.

    Raises:
        BusyError: when another process holds it and `wait` is False.
    """
    make_folder(path.parent)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise disk_error(path, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise BusyError(
                f"{what} is being written by another process",
                do="wait for it, or give each worker its own part with --worker",
            ) from error
        yield
    finally:
        os.close(handle)
