"""Tensors of a safetensors file as views of a memory map: nothing is read before it is used."""

from __future__ import annotations

import json
import mmap
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import DamageError, InputError

if TYPE_CHECKING:
    import torch


def map_tensors(path: Path, names: Collection[str] | None = None) -> dict[str, torch.Tensor]:
    """Tensors of the file, private to this process, backed by the page cache.

    Args:
        names: of those that are wanted, as far as they are there; None = all.

    Raises:
        DamageError: when the header or the size is not that of a safetensors file.
    """
    import torch

    types: dict[str, tuple[Any, int]] = {
        "I8": (torch.int8, 1),
        "F16": (torch.float16, 2),
        "F32": (torch.float32, 4),
        "F64": (torch.float64, 8),
        "I32": (torch.int32, 4),
        "I64": (torch.int64, 8),
    }
    try:
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise InputError(f"{path} cannot be read", found=error.strerror) from error
    except ValueError as error:  # nothing to map
        raise _damaged(path, "an empty file") from error
    try:
        length = int.from_bytes(view[:8], "little")
        header = json.loads(view[8 : 8 + length])
        tensors: dict[str, torch.Tensor] = {}
        for name, entry in header.items():
            if name == "__metadata__" or (names is not None and name not in names):
                continue
            dtype, width = types[entry["dtype"]]
            start, end = entry["data_offsets"]
            if 8 + length + end > len(view):
                raise ValueError(f"{name} ends beyond the file")
            count = (end - start) // width
            flat = (
                torch.frombuffer(view, dtype=dtype, count=count, offset=8 + length + start)
                if count
                else torch.empty(0, dtype=dtype)
            )
            tensors[name] = flat.view(entry["shape"])
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError, RuntimeError) as e:
        raise _damaged(path, str(e)) from e
    return tensors


def _damaged(path: Path, found: str) -> DamageError:
    return DamageError(
        f"{path} is damaged",
        expected="a safetensors file",
        found=found,
        do="build again: only what is damaged is made anew",
    )
