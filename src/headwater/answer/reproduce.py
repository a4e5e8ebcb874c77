"""How to get an answer again: as a command line and as Python, with all that was asked.

What the answer does not know (held-out queries and long lists of ids, which lie in files; encoders,
functions and methods of one's own) stands there by a name to be filled in.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.methods.method import Method
    from headwater.tasks.query import Query

HELD_OUT, IDS = "held_out.jsonl", "ids.txt"  # files that a command line names
FEW = 20  # ids that are written out
METHODS = ("lexical", "semantic")  # options that are methods
UNSPOKEN = (*METHODS, "entailment")  # options that a command line does not have
OPENING = ("headwater", "ask")

Options = Mapping[str, Any]


def reproduce(path: Path, query: Query, method: Method | None, options: Options) -> dict[str, str]:
    """`python`, and `command` where a command line can say it, with what is `left_out` of it.

    The command ends with the prompt and the completion; all options stand before them.

    Args:
        path: of the index. query, method: what was asked; no method without influence.
        options: of `hw.ask`, those that are not at their defaults, `top` always.
    """
    made: dict[str, str] = {}
    asked = _query(query)
    if asked is not None:
        arguments = [] if method is None else [f"method={_method(method)}"]
        arguments += _arguments(options)
        made["python"] = f"hw.ask(hw.Index.open({str(path)!r}), {asked}, {', '.join(arguments)})"
    if query.completion is not None and isinstance(query.prompt, str):
        said = [query.prompt, query.completion]
        words = [*OPENING, str(path), *_words(method, options)]
        if isinstance(query.instead_of, str):
            words += ["--instead-of", query.instead_of]
        if query.words is not None:
            words += [word for one in query.chosen for word in ("--words", f"{one[0]}:{one[1]}")]
        # What begins with a dash would be read as an option.
        words += ["--", *said] if any(text.startswith("-") for text in said) else said
        made["command"] = shlex.join(words)
        left_out = {name: options[name] for name in UNSPOKEN if name in options}
        if method is not None and not _needed(method):
            spoken = _spoken(method)
            left_out |= {n: v for n, v in changed(method).items() if n not in spoken}
        if left_out:
            made["left_out"] = ", ".join(_arguments(left_out))
    return made


def _query(query: Query) -> str | None:
    """The query as Python; None for columns that have no short form."""
    if query.parts:
        parts = [_query(part) for part in query.parts]
        known = [part for part in parts if part is not None]
        return f"hw.Query.mean([{', '.join(known)}])" if len(known) == len(parts) else None
    given: list[str] = []
    if query.prompt is not None or query.completion is not None:
        prompt = query.prompt if isinstance(query.prompt, str | None) else list(query.prompt)
        given += [repr(prompt), repr(query.completion)]
    for name in ("words", "instead_of", "input_ids", "target", "columns", "name"):
        value = _plain(getattr(query, name))
        if value is _UNSPEAKABLE:
            return None
        if value is not None:
            given.append(f"{name}={value!r}")
    return f"hw.Query({', '.join(given)})"


_UNSPEAKABLE = object()


def _plain(value: Any) -> Any:
    """Lists and numbers as they are written; a marker for what is not (arrays of columns)."""
    if isinstance(value, Mapping):
        return _UNSPEAKABLE
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        items: Sequence[Any] = value
        return type(value)(_plain(item) for item in items)
    return value.item() if isinstance(value, np.generic) else value


def changed(method: Method) -> dict[str, Any]:
    """The method's parameters that are not its defaults."""
    told, usual = method.describe(), _usual(method)
    return {
        name: value for name, value in told.items() if name != "method" and value != usual.get(name)
    }


def _usual(method: Method) -> dict[str, Any]:
    """The parameters of such a method as it is by default; none where it cannot be made so."""
    if not _known(method) or _needed(method):
        return {}
    try:
        return type(method)().describe()
    except InputError:  # its defaults ask for more (DDA: the base model)
        return {}


def _known(method: Method) -> bool:
    from headwater.evidence.rankers import METHODS

    return type(method) in METHODS.values()


def _needed(method: Method) -> list[str]:
    """The options without which a method of this kind cannot be made."""
    from headwater.evidence.rankers import required

    return required(method.name) if _known(method) else []


def _spoken(method: Method) -> dict[str, Any]:
    """What the command line is told of the method: its needs, and what is not usual."""
    from headwater.evidence.rankers import takes

    needed = _needed(method)
    if not needed and _known(method) and not _usual(method):
        needed = [n for n in ("run", "base") if takes(method.name, n)]
    if needed:
        return {name: name.upper() for name in needed}
    return {n: v for n, v in changed(method).items() if n in ("damping", "mixing", "eval_queries")}


def _method(method: Method, name: str = "method") -> str:
    """As it is made; one of the user's own, or of several methods, by its name."""
    if not _known(method):
        return name
    fill_in = {"eval_queries": "held_out", "encoder": "encoder"}
    needed = _needed(method)
    if needed:  # what a run is has no short form
        return f"hw.{type(method).__name__}({', '.join(needed)}, ...)"
    given = [f"{key}={fill_in.get(key) or repr(v)}" for key, v in changed(method).items()]
    return f"hw.{type(method).__name__}({', '.join(given)})"


def _arguments(options: Options) -> list[str]:
    """As arguments of `hw.ask`."""
    made: list[str] = []
    for name, value in options.items():
        if name in METHODS:
            made.append(f"{name}={_method(value, name)}")
        elif name == "entailment" or (name == "ids" and len(value) > FEW):
            made.append(f"{name}={name}")
        else:
            made.append(f"{name}={value!r}")
    return made


def _words(method: Method | None, options: Options) -> list[str]:
    """As options of `headwater ask`."""
    words = [] if method is None else ["--method", method.name]
    for name, value in {} if method is None else _spoken(method).items():
        words += [f"--{name.replace('_', '-')}", HELD_OUT if name == "eval_queries" else str(value)]
    for name, value in options.items():
        if name in UNSPOKEN:
            continue
        if name in ("calibrate", "tokens"):
            words.append(f"--no-{name}")
        elif name == "ids":
            words += ["--ids", IDS]
        elif name == "groups":
            words += [w for one in value[1] for w in ("--where", f"{value[0]}={one}")]
        elif name == "evidence":
            words += ["--evidence", ",".join(value)]
        elif name == "candidates":
            words += ["--candidates", f"{value[0]}:{value[1]}"]
        elif name in ("top", "fusion", "tokenizer", "uncertainty", "filter"):
            # In one word with its option: a filter may begin with a dash.
            words += [f"--filter={value}"] if name == "filter" else [f"--{name}", str(value)]
        else:
            words += [w for one in value for w in (f"--{name}", str(one))]
    return words
