"""Names for what is served: clients say names, never paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwater.engine.errors import InputError


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Folders or files by their own names, told apart by those above them where they are equal.

    Raises:
        InputError: when one is given twice.
    """
    whole = [path.resolve() for path in paths]
    if len(set(whole)) < len(whole):
        twice = next(path for path in whole if whole.count(path) > 1)
        raise InputError(f"{twice} is given twice", expected="once")
    names = [path.name for path in whole]
    for depth in range(2, max((len(path.parts) for path in whole), default=0) + 1):
        if len(set(names)) == len(names):
            break
        names = [
            "-".join(path.parts[-depth:]) if names.count(name) > 1 else name
            for name, path in zip(names, whole, strict=True)
        ]
    return dict(zip(names, paths, strict=True))
