"""From a row's columns to a document's content: renaming, the kind of the corpus, and the checks.

The kind is settled once, when a corpus is opened, from the columns after renaming. Every row is
then held to it, so that no later stage needs to ask what it was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from headwater.corpus.rows import RowProblem, shown
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Kinds in the order in which they are tried, and the columns that make them.
KINDS: dict[str, tuple[str, ...]] = {
    "tokens": ("input_ids",),
    "messages": ("messages",),
    "prompt": ("prompt", "completion"),
    "text": ("text",),
}
WORDS = ("text", "prompt", "completion", "messages", "input_ids", "labels", "id")
NOT_LEARNED = -100
_TOKEN_LIMIT = 2**31
_WANTED = "input_ids (and labels), or messages, or prompt and completion, or text"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A row that passed its checks; `id` is None where the corpus has no id column."""

    id: str | None
    content: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the columns of a corpus are read.

    Attributes:
        kind: "tokens", "messages", "prompt", "text" or "columns".
        possible: every kind that the columns would have allowed, in order of precedence.
        names: the columns that are content.
        renames: our word -> their column, as the person gave it.
        has_id: whether ids are given.
        hidden: their columns that cannot be kept because a renamed one took their name.
    """

    kind: str
    possible: tuple[str, ...]
    names: tuple[str, ...]
    renames: dict[str, str]
    has_id: bool
    hidden: tuple[str, ...] = ()

    def read(self, values: Mapping[str, Any]) -> Parsed:
        """Check one row and take it apart; raises `RowProblem`."""
        renamed = rename(values, self.renames)
        given = _given_id(renamed, self.has_id)
        for name in self.names:
            if renamed.get(name) is None:
                raise RowProblem(
                    f"no {self._their(name)}",
                    expected=f"a value in column {self._their(name)!r}",
                    found="null" if name in renamed else f"columns {_list(values)}",
                )
        content = {name: renamed.pop(name) for name in self.names}
        if self.kind == "tokens" and renamed.get("labels") is not None:
            content["labels"] = renamed.pop("labels")
        elif self.kind == "tokens":
            renamed.pop("labels", None)
        return Parsed(given, _check(self.kind, content), renamed)

    def describe(self) -> dict[str, Any]:
        """The layout for a manifest: kind, columns by our word, and what was set aside."""
        ours = [*self.names, *(["id"] if self.has_id else [])]
        return {
            "kind": self.kind,
            "possible_kinds": list(self.possible),
            "columns": {**{name: self._their(name) for name in ours}, **self.renames},
            "hidden_columns": list(self.hidden),
        }

    def _their(self, name: str) -> str:
        return self.renames.get(name, name)


def check_renames(columns: Mapping[str, str] | None) -> dict[str, str]:
    """The mapping of our words to their columns, checked for its types only."""
    if columns is None:
        return {}
    for ours, theirs in dict(columns).items():
        if not (isinstance(cast("Any", ours), str) and isinstance(cast("Any", theirs), str)):
            raise InputError(
                "columns= maps our word to your column",
                expected="two strings",
                found=f"{ours!r}: {theirs!r}",
            )
        if not ours.isidentifier():
            raise InputError(
                f"columns= has no word {ours!r}",
                expected=f"one of {', '.join(WORDS)}, or a word of your own for metadata",
                found=repr(ours),
            )
    return dict(columns)


def rename(values: Mapping[str, Any], renames: Mapping[str, str]) -> dict[str, Any]:
    """The row under our words; a column whose name a renamed one took is left out."""
    if not renames:
        return dict(values)
    moved = set(renames.values()) | set(renames)
    kept = {name: value for name, value in values.items() if name not in moved}
    kept.update({ours: values[theirs] for ours, theirs in renames.items() if theirs in values})
    return kept


def detect(found: Collection[str], renames: dict[str, str], kind: str | None, where: str) -> Layout:
    """Settle the kind of a corpus from its column names.

    A kind that uses a column the person renamed comes before the others; then the order of `KINDS`.

    Raises:
        InputError: a renamed column does not exist, or no kind (or not the one asked for) fits.
    """
    for ours, theirs in renames.items():
        if theirs not in found:
            raise InputError(
                f"{where} has no column {theirs!r} (asked for as {ours!r})",
                expected="one of its columns",
                found=_list(found),
            )
    ours_found = rename(dict.fromkeys(found), renames)
    possible = tuple(name for name, need in KINDS.items() if set(need) <= set(ours_found))
    if kind is not None and kind not in KINDS:
        raise InputError("unknown kind", expected=f"one of {', '.join(KINDS)}", found=repr(kind))
    if kind is not None and kind not in possible:
        raise InputError(
            f"{where} cannot be read as {kind}",
            expected=f"columns {_list(KINDS[kind])}",
            found=_list(ours_found),
        )
    if not possible:
        raise InputError(
            f"{where} has no column to learn from",
            expected=_WANTED,
            found=_list(ours_found),
            do="name yours with columns={our word: your column} (--column OURS=YOURS); our "
            "words are "
            f"{', '.join(WORDS)}, and any other word is kept as metadata",
        )
    asked = [name for name in possible if set(KINDS[name]) & set(renames)]
    chosen = kind or (asked or list(possible))[0]
    hidden = tuple(sorted((set(renames) & set(found)) - set(renames.values())))
    return Layout(chosen, possible, KINDS[chosen], renames, "id" in ours_found, hidden)


def _given_id(renamed: dict[str, Any], has_id: bool) -> str | None:
    if not has_id:
        if renamed.get("id") is not None:
            raise RowProblem("an id, where the rows before have none", found=shown(renamed["id"]))
        renamed.pop("id", None)
        return None
    value = renamed.pop("id", None)
    if hasattr(value, "item"):  # a numpy or torch scalar
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        if value is None:
            expected = "an id in every row of every file, or in none (files of text have none)"
            raise RowProblem("no id, where the rows before have one", expected=expected)
        raise RowProblem("no usable id", expected="text or a number", found=shown(value))
    return str(value)


def _check(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    if kind == "text":
        _check_text("text", content["text"])
    elif kind == "prompt":
        _check_text("prompt", content["prompt"], may_be_empty=True)
        _check_text("completion", content["completion"])
    elif kind == "messages":
        return {"messages": _check_messages(content["messages"])}
    elif kind == "tokens":
        return _check_tokens(content)
    return content


def _check_text(name: str, value: object, *, may_be_empty: bool = False) -> None:
    if not isinstance(value, str):
        raise RowProblem(f"{name} is not text", expected="a string", found=shown(value))
    if not may_be_empty and not value.strip():
        raise RowProblem(f"{name} is empty", expected="some text", found=shown(value))
    if not _is_unicode(value):
        raise RowProblem(f"{name} is not valid Unicode", found="half of a surrogate pair")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_messages(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple):
        raise RowProblem("messages is not a list", expected="a list", found=shown(value))
    if not value:
        raise RowProblem("messages is empty", expected="at least one message", found="[]")
    messages = [
        _check_message(number, message)
        for number, message in enumerate(cast("list[object]", value), 1)
    ]
    if not any(_has_content(message) for message in messages):
        raise RowProblem("every message is empty", expected="some content")
    return messages


def _has_content(message: dict[str, Any]) -> bool:
    content = message.get("content")
    return bool(
        message.get("tool_calls") or (content.strip() if isinstance(content, str) else content)
    )


def _check_message(number: int, value: object) -> dict[str, Any]:
    wrong = f"message {number} is not a chat message"
    wanted = '{"role": ..., "content": ...}'
    if not isinstance(value, dict):
        raise RowProblem(wrong, expected=wanted, found=shown(value))
    # Arrow fills the fields that a message lacks with nulls; a chat template wants them absent.
    given = cast("dict[str, Any]", value)
    message = {name: part for name, part in given.items() if part is not None or name == "content"}
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise RowProblem(wrong, expected=wanted, found=f"role {shown(role)}")
    if isinstance(content, str):
        _check_text(f"message {number}", content, may_be_empty=True)
    elif isinstance(content, list) and content:
        if not all(isinstance(part, dict) for part in cast("list[Any]", content)):
            raise RowProblem(wrong, expected="text, or parts as dicts", found=shown(content))
    elif content is not None or not message.get("tool_calls"):
        raise RowProblem(wrong, expected=wanted, found=f"content {shown(content)}")
    return message


def _check_tokens(content: dict[str, Any]) -> dict[str, Any]:
    ids = _integers("input_ids", content["input_ids"])
    if min(ids) < 0 or max(ids) >= _TOKEN_LIMIT:
        bad = min(ids) if min(ids) < 0 else max(ids)
        raise RowProblem("input_ids out of range", expected="ids from 0 to 2^31 - 1", found=bad)
    if "labels" not in content:
        return {"input_ids": ids}
    labels = _integers("labels", content["labels"])
    if len(labels) != len(ids):
        raise RowProblem(
            "labels do not match input_ids",
            expected=f"{len(ids)} labels",
            found=len(labels),
        )
    learned = [label for label in labels if label != NOT_LEARNED]
    if not learned:
        raise RowProblem("labels are all -100", expected="at least one token to learn")
    if min(learned) < 0 or max(learned) >= _TOKEN_LIMIT:
        bad = min(learned) if min(learned) < 0 else max(learned)
        raise RowProblem("labels out of range", expected="token ids or -100", found=bad)
    return {"input_ids": ids, "labels": labels}


def _integers(name: str, value: Any) -> list[int]:
    numbers = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(numbers, list | tuple):
        raise RowProblem(f"{name} is not a list", expected="a list of ids", found=shown(value))
    found = list(cast("list[Any]", numbers))
    if not found:
        raise RowProblem(f"{name} is empty", expected="at least one token", found="[]")
    if set(map(type, found)) != {int}:
        other = next(number for number in found if type(number) is not int)
        raise RowProblem(f"{name} is not a list of integers", found=shown(other))
    return found


def _list(names: Collection[str]) -> str:
    listed = list(names)
    more = f", and {len(listed) - 20} more" if len(listed) > 20 else ""
    return (", ".join(listed[:20]) or "none") + more
