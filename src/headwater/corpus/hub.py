"""Rows through Hugging Face `datasets`: hub names (streamed), and folders it saved to disk.

The package is an extra. Names read `hf://NAME`, `hf://OWNER/NAME/CONFIG`, and end in `:SPLIT` where
a data set has several splits and none is called "train".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headwater.corpus.rows import Row
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from headwater.corpus.rows import BadRow

_PREFIX = "hf://"


def is_hub_name(text: str) -> bool:
    """Whether `text` names a data set; `hf://datasets/...` is the fsspec path of single files."""
    return text.startswith(_PREFIX) and not text.startswith(f"{_PREFIX}datasets/")


def is_saved_dataset(path: str) -> bool:
    """Whether `path` is a folder written by `save_to_disk`."""
    folder = Path(path).expanduser()
    whole = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return whole or (folder / "dataset_dict.json").is_file()


class DatasetRows:
    """The rows of one split."""

    def __init__(self, name: str, dataset: Iterable[dict[str, Any]], facts: dict[str, Any]) -> None:
        self.name = name
        self._dataset = dataset
        self._facts = facts

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows, streamed."""
        number = 0
        rows = iter(self._dataset)
        while True:
            try:
                values = next(rows, None)
            except Exception as error:  # the network's, a decoder's, the file format's
                raise InputError(
                    f"{self.name} cannot be read on after row {number}", found=_reason(error)
                ) from error
            if values is None:
                return
            number += 1
            yield Row(self.name, number, dict(values))

    def describe(self) -> list[dict[str, Any]]:
        """The data set's name, and fingerprint where it has one."""
        return [{"name": self.name, **self._facts}]


def open_hub(text: str) -> DatasetRows:
    """The data set that `text` names, streamed from the hub."""
    name, _, split = text.removeprefix(_PREFIX).partition(":")
    parts = name.split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise InputError("not a data set's name", expected="hf://OWNER/NAME[:SPLIT]", found=text)
    datasets = _import(text)
    path, config = "/".join(parts[:2]), parts[2] if len(parts) == 3 else None
    try:
        found = datasets.load_dataset(path, config, split=split or None, streaming=True)
    except Exception as error:  # the hub's clients raise the errors of several libraries
        raise InputError(
            f"{text} cannot be opened",
            expected="a data set of the Hugging Face hub, and one of its splits",
            found=_reason(error),
        ) from error
    return _rows(text, found)


def open_saved(path: str) -> DatasetRows:
    """The data set that `save_to_disk` wrote to `path`."""
    datasets = _import(path)
    try:
        found = datasets.load_from_disk(str(Path(path).expanduser()))
    except Exception as error:  # a damaged folder fails in whichever library meets it
        raise InputError(
            f"{path} cannot be opened",
            expected="a folder written by save_to_disk",
            found=_reason(error),
        ) from error
    return _rows(path, found)


def _rows(text: str, found: Any) -> DatasetRows:
    if isinstance(found, dict):
        splits = cast("dict[str, Any]", found)
        chosen = "train" if "train" in splits else next(iter(splits), "")
        if not splits or (len(splits) > 1 and chosen != "train"):
            hub = text.startswith(_PREFIX)
            raise InputError(
                f"{text} has several splits",
                expected=f"{text}:SPLIT" if hub else f"{text}/SPLIT",
                found=", ".join(splits) or "none",
            )
        split, found = chosen, splits[chosen]
    else:
        split = str(getattr(found, "split", None) or "") or None
    facts = {"split": split, "fingerprint": getattr(found, "_fingerprint", None)}
    plain = found.with_format(None) if hasattr(found, "with_format") else found
    return DatasetRows(text, plain, facts)


def _import(text: str) -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"{text} needs the package datasets", do="install it with: pip install headwater[hub]"
        ) from None
    return datasets


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
