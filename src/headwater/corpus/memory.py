"""Rows from what is already in memory: columns of arrays, tensors or lists, and lists of dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headwater.corpus.content import KINDS, Layout
from headwater.corpus.rows import BadRow, Row, shown
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALLOWED = "array, tensor or list"


class DictRows:
    """The rows of a list of dicts."""

    def __init__(self, documents: Sequence[Mapping[str, Any]]) -> None:
        self.name = "documents"
        self._documents = documents

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows, in order."""
        for number, values in enumerate(self._documents, 1):
            if isinstance(cast("object", values), Mapping):
                yield Row(self.name, number, dict(values))
            else:
                yield BadRow(self.name, number, f"expected a dict; found {shown(values)}")

    def describe(self) -> list[dict[str, Any]]:
        """How many there are."""
        return [{"name": self.name, "rows": len(self._documents)}]


class ColumnRows:
    """The rows of columns of equal length, without copying arrays."""

    def __init__(self, columns: Mapping[str, Sequence[Any]], rows: int) -> None:
        self.name = "columns"
        self._columns = columns
        self._rows = rows

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows, in order."""
        for index in range(self._rows):
            values = {name: column[index] for name, column in self._columns.items()}
            yield Row(self.name, index + 1, values)

    def describe(self) -> list[dict[str, Any]]:
        """How many there are, and what arrays they are."""
        arrays = {
            name: f"{column.dtype}{list(column.shape)}"
            for name, column in self._columns.items()
            if isinstance(column, np.ndarray)
        }
        return [{"name": self.name, "rows": self._rows, "arrays": arrays}]


def read_columns(
    columns: Mapping[str, Any],
    ids: Sequence[Any] | None,
    metadata: Mapping[str, Sequence[Any]] | None,
) -> tuple[ColumnRows, Layout]:
    """The rows and the layout of columns in memory; see `Corpus.from_columns`."""
    if not columns:
        raise InputError("no columns were given", expected="at least one", found="none")
    kind = _content_kind(columns)
    content: dict[str, Any] = {
        name: _numeric(name, column) if kind is None else _listed(name, column)
        for name, column in columns.items()
    }
    others = {name: _listed(name, column) for name, column in (metadata or {}).items()}
    for name in (*others, *content):
        if name == "id" or (name in others and name in content):
            raise InputError(
                f"the column {name!r} is not free",
                expected="metadata of other names than the columns, and ids given as ids=[...]",
            )
    if ids is not None:
        others["id"] = _listed("ids", ids)
    lengths = {name: len(column) for name, column in {**content, **others}.items()}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise InputError("columns differ in length", expected="one length", found=told)
    rows = next(iter(lengths.values()))
    if rows == 0:
        raise InputError("the columns are empty", expected="at least one row", found="0 rows")
    names = tuple(content) if kind is None else KINDS[kind]
    chosen = kind or "columns"
    layout = Layout(chosen, (chosen,), names, {}, ids is not None)
    return ColumnRows({**content, **others}, rows), layout


def _content_kind(columns: Mapping[str, Any]) -> str | None:
    """The kind of a corpus of text or tokens; None for arrays that happen to have such names."""
    firsts = {name: _first(column) for name, column in columns.items()}
    names = set(columns)
    if names in ({"text"}, {"prompt", "completion"}):
        if all(isinstance(first, str) for first in firsts.values()):
            return "text" if names == {"text"} else "prompt"
    elif names == {"messages"} and isinstance(firsts["messages"], list | tuple):
        return "messages"
    elif names in ({"input_ids"}, {"input_ids", "labels"}) and all(
        isinstance(first, list | tuple) or np.ndim(first) == 1 for first in firsts.values()
    ):
        return "tokens"
    return None


def _first(column: Any) -> Any:
    try:
        first = list(column[:1])
    except (TypeError, KeyError, IndexError):
        return None
    return _from_torch(first[0]) if first else None


def _from_torch(value: Any) -> Any:
    """A tensor as an array (bfloat16, which numpy lacks, as float32); anything else as it is."""
    if not (hasattr(value, "detach") and hasattr(value, "numpy")):
        return value
    plain = value.detach().cpu()
    return (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()


def _listed(name: str, column: Any) -> Sequence[Any]:
    values = _from_torch(column)
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return cast("Sequence[Any]", values)  # rows of token ids are made lists one at a time
    if hasattr(values, "tolist") and np.ndim(values) == 1:
        return cast("list[Any]", values.tolist())
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise InputError(f"column {name!r} is not a column", expected=_ALLOWED, found=shown(values))
    return [_plain(value) for value in cast("Sequence[Any]", values)]


def _plain(value: Any) -> Any:
    value = _from_torch(value)
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _numeric(name: str, column: Any) -> Any:
    values = _from_torch(column)
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise InputError(f"column {name!r} is not a column", expected=_ALLOWED, found=shown(values))
    if not isinstance(values, np.ndarray):
        values = [_from_torch(value) for value in values]
        types = set(map(type, values))
        if str in types and types != {str}:  # numpy would make strings of them all
            raise _neither(name, f"types {', '.join(sorted(one.__name__ for one in types))}")
        try:
            values = np.asarray(values)
        except ValueError:  # rows of different shapes (sounds, for example) stay apart
            rows = [_checked(name, _row(name, value)) for value in values]
            if len({row.ndim for row in rows}) > 1:
                raise _neither(name, "numbers and arrays mixed") from None
            return rows
    array = cast("np.ndarray[Any, Any]", values)
    if array.ndim == 0:
        raise InputError(f"column {name!r} is not a column", expected=_ALLOWED, found=shown(column))
    return _checked(name, array)


def _row(name: str, value: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(f"a row of column {name!r} is not an array", found=str(error)) from None


def _checked(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "biufcUS":
        raise _neither(name, f"dtype {array.dtype}")
    return array


def _neither(name: str, found: str) -> InputError:
    return InputError(
        f"column {name!r} is neither numbers nor text",
        expected="numbers, booleans or strings, the same in every row",
        found=found,
    )
