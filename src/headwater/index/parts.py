"""Sums over a corpus in parts on disk: a pass that is stopped goes on, and processes share it.

A part is a file of sums with its mark, written by whoever holds the part's lock when it is done.
Parts are added in their order, in float64, a few tensors at a time: neither who made them nor how
often it was stopped changes a bit of the total, and the whole of it is never in memory.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from headwater.engine.errors import BusyError
from headwater.engine.files import locked, sweep, write_atomic
from headwater.engine.marks import read_mark, write_mark
from headwater.index.mapped import map_tensors

logger = logging.getLogger(__name__)

Sums = dict[str, torch.Tensor]


def write_tensors(path: Path, tensors: Sums) -> None:
    """Write a safetensors file and, last, the mark beside it."""
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, lambda temporary: save_file(ready, temporary))
    write_mark(path.with_suffix(".json"), {}, [path.name])


def is_written(path: Path) -> bool:
    """Whether the file is there, byte for byte what was marked; says so where it is damaged."""
    if not path.with_suffix(".json").exists():
        return False
    if read_mark(path.with_suffix(".json"), [path.name]) is not None:
        return True
    logger.warning("%s is damaged and is computed again", path)
    path.with_suffix(".json").unlink(missing_ok=True)
    return False


class Parts:
    """The parts of one pass.

    Args:
        folder: of their files; it is theirs alone.
        names: of all parts, in the order in which they are added.
        given: `given()` is true when somebody has finished what the parts are for: then none is
            missing, and they may be gone.
    """

    def __init__(self, folder: Path, names: Sequence[str], given: Callable[[], bool]) -> None:
        self.folder, self.names, self._given = folder, list(names), given
        self._seen: set[str] = set()  # whole when this process looked

    def missing(self) -> list[str]:
        """Names of parts that are still to be computed."""
        if self._given():
            return []
        self._seen.update(n for n in self.names if n not in self._seen and is_written(self._at(n)))
        return [name for name in self.names if name not in self._seen]

    def compute(self, name: str, make: Callable[[], Sums], *, wait: bool) -> bool:
        """Make and write a part, unless it is there by now.

        Args:
            wait: for a process that is at it; else the part is left to that one.

        Returns:
            Whether the part is there.
        """
        try:
            with locked(self.folder / f".{name}.lock", f"Part {name}", wait=wait):
                if not (self._given() or is_written(self._at(name))):
                    sweep(self.folder, f"{name}.*")
                    write_tensors(self._at(name), make())
        except BusyError:
            return False
        self._seen.add(name)
        return True

    def firsts(self) -> Sums:
        """Each tensor as the first part has it that has one, mapped."""
        made: Sums = {}
        for part in map(self._read, self.names):
            made = part | made
        return made

    def total(self, *names: str) -> list[torch.Tensor]:
        """Sums of tensors over the parts, float64 (int64 of whole numbers), on the CPU."""
        made: dict[str, torch.Tensor] = {}
        for part in (self._read(part, names) for part in self.names):
            for name in (name for name in names if name in part):
                if name in made:
                    made[name] += part[name]
                else:
                    one = part[name]
                    made[name] = one.double() if one.dtype == torch.float32 else one.clone()
        return [made[name] for name in names]

    def remove(self) -> None:
        """Remove the parts' folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _at(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _read(self, name: str, tensors: Sequence[str] | None = None) -> Sums:
        """Mapped anew each time: a map that is kept would keep in memory what was read."""
        return map_tensors(self._at(name), tensors)
