"""Questions from the command line: query files, the index with its model, the method by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError
from headwater.engine.json_lines import json_object, numbered, read_text

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.tasks.query import Query

Asked = tuple["Query | str", str | None]  # what is explained, or a prompt alone; and its id


def read_queries(source: str) -> list[Query]:
    """The queries of a packaged set, by its name, or of a JSON Lines file.

    Raises:
        InputError: naming the file and the line that cannot be used.
    """
    return [query for query, _ in _read(source, alone=False)]


def read_asked(source: str) -> list[Asked]:
    """The same, and prompts without a completion as they are."""
    return _read(source, alone=True)


def _read(source: str, *, alone: bool) -> list[Any]:
    """`alone`: also prompts without a completion."""
    from headwater.evaluation.query_sets import QUERY_SETS, query_set

    if source in QUERY_SETS:
        items = query_set(source)
        return [
            (item.prompt if alone and item.completion is None else item.query(), item.id)
            for item in items
        ]
    expected = f"a JSON Lines file, or one of {', '.join(QUERY_SETS)}"
    lines = numbered(read_text(Path(source), expected))
    if not lines:
        raise InputError(f"{source} holds no query", expected="one JSON object a line")
    return [_asked(f"{source}, line {number}", line, alone) for number, line in lines]


def _asked(place: str, line: str, alone: bool) -> Asked:
    from headwater.tasks.query import Query

    values = json_object(place, line, "query")
    _check_types(place, values)
    prompt, completion, other = (values.get(n) for n in ("prompt", "completion", "instead_of"))
    name = None if values.get("id") is None else str(values["id"])
    if completion is None and other is None and isinstance(prompt, str) and alone:
        return prompt, name  # the model goes on from it
    missing = [field for field in ("prompt", "completion") if field not in values]
    if missing:
        raise InputError(
            f"{place}: {missing[0]!r} is missing",
            expected="prompt and completion, and perhaps instead_of and id",
            found=", ".join(values) or "no fields",
        )
    try:
        return Query(prompt, completion, other, name=name), name
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _check_types(place: str, values: Mapping[str, Any]) -> None:
    for name in ("prompt", "completion", "instead_of"):
        value = values.get(name)
        messages = name == "prompt" and isinstance(value, list)
        if value is not None and not isinstance(value, str) and not messages:
            raise InputError(
                f"{place}: {name} is not text", expected="a string", found=repr(value)[:60]
            )


def choose_method(
    name: str | None,
    eval_queries: str | None,
    damping: float | None = None,
    mixing: float | None = None,
    run: str | None = None,
    base: str | None = None,
    settings: Sequence[str] | None = None,
) -> Method | None:
    """The method of this name with its options; None = the default of what is asked.

    Raises:
        InputError: for an unknown name, or options that are not the method's.
    """
    from headwater.curvature.damping import RelativeDamping
    from headwater.evidence.rankers import annotation, method_by_name, parts_of

    more = parse_settings(settings)
    alone = parts_of(name or "trackstar")[0]
    relative = damping is not None and "Damping" in annotation(alone, "damping")
    given: dict[str, Any] = {
        # Where a method takes a bare number as absolute, the command's is relative all the same.
        "damping": RelativeDamping(damping) if relative and damping is not None else damping,
        "mixing": mixing,
        "eval_queries": eval_queries,
        "run": run,
        "base": base,
    }
    options = {option: value for option, value in given.items() if value is not None}
    twice = sorted(options.keys() & more.keys())
    if twice:
        raise InputError(f"--set {twice[0]} and --{twice[0].replace('_', '-')} are one option")
    options |= more
    if name is None and not options:
        return None
    name = name or "trackstar"
    hessian = [option for option in ("eval_queries", "mixing") if option in options]
    if hessian and "trackstar" not in parts_of(name):
        raise InputError(
            f"--{hessian[0].replace('_', '-')} is for TrackStar's task Hessian",
            expected="trackstar",
            found=name,
        )
    if eval_queries is not None:
        options["eval_queries"] = read_queries(eval_queries)
    if run is not None:
        from headwater.training.run import TrainingRun

        options["run"] = TrainingRun.open(run)
    return method_by_name(name, **options)


def method_given(given: Mapping[str, Any]) -> Method | None:
    """`choose_method` by the names of a command's parameters."""
    names = ("method", "eval_queries", "damping", "mixing", "run", "base", "setting")
    return choose_method(*(given[name] for name in names))


def parse_settings(given: Sequence[str] | None) -> dict[str, Any]:
    """`["segments=3", "fast=true"]` -> {"segments": 3, "fast": True}; what is not JSON is text.

    Raises:
        InputError: for what is not NAME=VALUE, or a name that comes twice.
    """
    found: dict[str, Any] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise InputError("A setting is not understood", expected="NAME=VALUE", found=repr(one))
        if name in found:
            raise InputError(f"--set {name} is given twice")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def read_ids(path: Path | None) -> list[str] | None:
    """The ids of a file, one a line; None without a file."""
    if path is None:
        return None
    ids = [line.strip() for _, line in numbered(read_text(path))]
    if not ids:
        raise InputError(f"{path} holds no id", expected="one id a line")
    return ids


def parse_words(given: list[str] | None) -> list[tuple[int, int]] | None:
    """Ranges of characters, START:END, half-open; None where there are none."""
    if not given:
        return None
    ranges: list[tuple[int, int]] = []
    for one in given:
        start, colon, end = one.partition(":")
        if not (colon and start.isdecimal() and end.isdecimal()):
            raise InputError("These are no words", expected="START:END, as 0:5", found=one)
        ranges.append((int(start), int(end)))
    return ranges


def parse_groups(given: Sequence[str] | None) -> tuple[str, list[str]] | None:
    """`["source=a", "source=b"]` -> ("source", ["a", "b"]); None for nothing.

    Raises:
        InputError: for what is not COLUMN=VALUE, or for several columns.
    """
    pairs = [one.partition("=") for one in given or ()]
    if not pairs:
        return None
    for (column, equals, value), one in zip(pairs, given or (), strict=True):
        if not (column and equals and value):
            raise InputError("A group is not named", expected="COLUMN=VALUE", found=repr(one))
    columns = list(dict.fromkeys(column for column, _, _ in pairs))
    if len(columns) > 1:
        raise InputError(
            "Groups of several columns are given", expected="one", found=", ".join(columns)
        )
    return columns[0], [value for _, _, value in pairs]


def parse_kinds(text: str) -> list[str]:
    """`influence,lexical` -> ["influence", "lexical"]; names are checked where they are used."""
    return [kind.strip() for kind in text.split(",") if kind.strip()]


def parse_candidates(text: str | None) -> tuple[str, int] | None:
    """`lexical:200` -> ("lexical", 200).

    Raises:
        InputError: for what is not KIND:COUNT.
    """
    if text is None:
        return None
    kind, _, count = text.partition(":")
    if not count.isdecimal():
        raise InputError("Candidates are not understood", expected="KIND:COUNT", found=repr(text))
    return kind, int(count)


def open_index(
    path: Path,
    *,
    model: str | None = None,
    trust_model: bool = False,
    trust_remote_code: bool = False,
    device: str | None = None,
    unfinished: bool = False,
) -> Index:
    """Open an index; with `model`, its model is taken from there.

    Raises:
        MismatchError: when `model` is not the one the index was built with; names the field.
    """
    from headwater.index.index import Index

    index = Index.open(path, trust_model=trust_model, unfinished=unfinished)
    options: dict[str, Any] = {}
    if device is not None:
        options["device"] = device
    if trust_remote_code:
        options["trust_remote_code"] = True
    if model is not None or options:
        local = model is not None and Path(model).is_dir()
        index.load_task(str(Path(str(model)).resolve()) if local else model, **options)
    return index
