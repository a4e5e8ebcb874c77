"""One training example, the hash of its content, and its text for a reader.

The hash is the identity of an example that was given none, so its bytes are part of what an index
records: every value is written with a tag of its type and its length, and nothing depends on the
process, the platform or the order of a dict.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import struct
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Types of Arrow and JSON readers whose `str` is canonical.
_STABLE_TEXT = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)


@dataclass(frozen=True, slots=True)
class Document:
    """One training example of a corpus.

    Attributes:
        id: unique in the corpus; given, or content hash plus occurrence.
        content: by the kind of the corpus: `text`: {"text"}; `prompt`: {"prompt", "completion"};
            `messages`: {"messages": list of dicts}; `tokens`: {"input_ids": list of int, and
            "labels", as long, -100 where not learned, if given}; `columns`: {name: ndarray or
            numpy scalar}.
        metadata: everything else the row held, under its own (or renamed) names.
    """

    id: str
    content: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


class _Sink(Protocol):
    def update(self, data: bytes, /) -> None: ...


def content_hash(content: Mapping[str, Any]) -> str:
    """The sha256 (64 hex digits) of a canonical, type-tagged writing of `content`.

    Arrays count by dtype, shape and bytes; a numpy scalar is not the Python number of equal value.

    Raises:
        InputError: a value is of a type that has no stable writing, or a string no UTF-8 form.
    """
    sink = hashlib.sha256()
    _write(sink, content)
    return sink.hexdigest()


def _tagged(sink: _Sink, tag: bytes, data: bytes) -> None:
    sink.update(b"%s%d:" % (tag, len(data)))
    sink.update(data)


def _write(sink: _Sink, value: Any) -> None:
    if isinstance(value, str):
        _tagged(sink, b"s", _utf8(value))
    elif value is None:
        sink.update(b"n")
    elif isinstance(value, bool):
        sink.update(b"t" if value else b"f")
    elif isinstance(value, np.ndarray | np.generic):
        _write_array(sink, np.asarray(value))
    elif isinstance(value, int):
        _tagged(sink, b"i", b"%d" % value)
    elif isinstance(value, float):
        _tagged(sink, b"d", struct.pack("<d", value))
    elif isinstance(value, bytes | bytearray | memoryview):
        _tagged(sink, b"y", bytes(value))
    elif isinstance(value, list | tuple):
        _write_list(sink, cast("Sequence[Any]", value))
    elif isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        sink.update(b"m%d:" % len(items))
        for key in sorted(items, key=str):
            _write(sink, key)
            _write(sink, items[key])
    elif isinstance(value, _STABLE_TEXT):
        _tagged(sink, b"o", f"{type(value).__name__} {value}".encode())
    else:
        raise InputError(
            "this content cannot be hashed",
            expected="text, numbers, lists, dicts or arrays",
            found=type(value).__name__,
        )


def _write_list(sink: _Sink, values: Sequence[Any]) -> None:
    # Token ids are by far the longest lists: their 64-bit words are written at once.
    if set(map(type, values)) == {int}:
        try:
            words = np.asarray(values, dtype="<i8")
        except OverflowError:
            pass
        else:
            _tagged(sink, b"q", words.tobytes())
            return
    sink.update(b"l%d:" % len(values))
    for value in values:
        _write(sink, value)


def _write_array(sink: _Sink, array: np.ndarray[Any, Any]) -> None:
    if array.dtype.kind == "O":
        raise InputError("this content cannot be hashed", found="an array of Python objects")
    if array.dtype.kind in "US":
        # The dtype of a string array holds the longest string of its column: not of this row.
        sink.update(b"u" + repr(array.shape).encode())
        _write(sink, array.ravel().tolist())
        return
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    sink.update(b"a" + f"{plain.dtype.str}{array.shape}".encode())
    _tagged(sink, b"", plain.tobytes())


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InputError(
            "a string is not valid Unicode", found="half of a surrogate pair"
        ) from None


def plain_text(document: Document) -> str:
    """What a person reads of a document.

    The text; prompt and completion joined; messages as lines of "role: content"; "" for token ids,
    which need a tokenizer; short forms of the values for columns.
    """
    content = document.content
    if "input_ids" in content:
        return ""
    if "messages" in content:
        return "\n".join(_message_text(message) for message in content["messages"])
    if "prompt" in content and "completion" in content:
        return f"{content['prompt']}{content['completion']}"
    if isinstance(content.get("text"), str):
        return str(content["text"])
    return ", ".join(f"{name}={_short(value)}" for name, value in content.items())


def _message_text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = cast("list[dict[str, Any]]", content)
        content = " ".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)
    return f"{message['role']}: {content if content is not None else '[tool calls]'}"


def _short(value: Any) -> str:
    array = np.asarray(value)
    if array.size == 1 and array.ndim == 0:
        return str(array.item())
    if array.size <= 4 and array.ndim == 1:
        return str(array.tolist())
    return f"{array.dtype.name}[{', '.join(map(str, array.shape))}]"
