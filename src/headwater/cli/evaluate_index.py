"""`headwater evaluate OUT`: methods on one's own index, by every metric that can be had there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import options as o
from headwater.cli.show_board import show_board
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.evaluation.board import Board

Listed = str | None
Queries = Annotated[
    o.Text,
    typer.Option(
        metavar="FILE", help="JSON Lines: prompt, completion, gold?; or 'facts', the demo's."
    ),
]
Metrics = Annotated[
    Listed,
    typer.Option(
        metavar="X,Y",
        help="retrieval, tail-patch, detection; with --run and --base also lds (8 or more "
        "subsets), lds-fixed, removal, brittleness, false-attribution, magic. Default: what costs "
        "no training.",
    ),
]


def index(
    out: o.Out,
    *,
    queries: Queries = None,
    metrics: Metrics = None,
    methods: Annotated[
        Listed, typer.Option(metavar="A,B", help="Default: the usual ones, bm25 and random.")
    ] = None,
    eval_queries: o.EvalQueries = None,
    run: o.Run = None,
    base: o.Base = None,
    wanted: Annotated[
        o.Text, typer.Option(metavar="COLUMN=VALUE", help="Rows to be found, for detection.")
    ] = None,
    subsets: Annotated[int, typer.Option(help="Trials of lds.")] = 32,
    seeds: Annotated[int, typer.Option(help="Trainings of each trial.")] = 2,
    top: Annotated[int, typer.Option(help="Documents left out, or stepped on.")] = 5,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of a tail patch's step; default: the run's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that train side by side; default: the cores.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    cache: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Default: OUT/evaluation.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For board.md, .json, .svg and .png.")
    ] = None,
    model: o.OtherModel = None,
    trust_model: o.TrustModel = False,
    trust_remote_code: o.TrustRemoteCode = False,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Judge methods on an index of your own, with intervals and costs.

    `headwater evaluate OUT` is short for `headwater evaluate index OUT`. What was trained or
    measured before is taken from the cache.
    """
    found = _board(dict(locals()))
    show_board(found, save, as_json=json)


def _board(given: dict[str, Any]) -> Board:
    """The board, by the names of the parameters of `index`."""
    from headwater.cli.evaluate import chosen_methods
    from headwater.cli.queries import open_index
    from headwater.evaluation.on_index import index_board
    from headwater.evaluation.query_sets import load_query_set
    from headwater.evidence.rankers import METHODS, parts_of, takes
    from headwater.training.run import TrainingRun

    if given["queries"] is None:
        raise InputError("There are no queries", expected="--queries FILE (JSON Lines), or 'facts'")
    for name in ("subsets", "seeds", "top"):
        if given[name] < 1:
            raise InputError(f"--{name} must be positive", found=given[name])
    items = load_query_set(given["queries"])
    opening = ("model", "trust_model", "trust_remote_code", "device")
    opened = open_index(given["out"], **{name: given[name] for name in opening})
    asked = {**given, "method": _parts(given["methods"])}
    parts = [part for name in asked["method"] or () for part in parts_of(name)]
    for name in ("run", "base"):  # metrics want them too, whether or not a method does
        if not any(takes(part, name) for part in parts if part in METHODS):
            asked[name] = None
    made = chosen_methods(opened, asked)
    names = asked["method"] or [method.name for method in made]
    options = ("subsets", "seeds", "top", "workers", "learning_rate", "seed")
    return index_board(
        opened,
        items,
        dict(zip(names, made, strict=True)),
        _parts(given["metrics"]),
        cache=given["cache"] or Path(given["out"]) / "evaluation",
        run=None if given["run"] is None else TrainingRun.open(given["run"]),
        base=given["base"],
        wanted=_wanted(given["wanted"]),
        **{name: given[name] for name in options},
    )


def _parts(listed: str | None) -> list[str] | None:
    return None if listed is None else [one.strip() for one in listed.split(",") if one.strip()]


def _wanted(given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    column, equals, value = given.partition("=")
    if not equals or not column:
        raise InputError("--wanted is not understood", expected="COLUMN=VALUE", found=repr(given))
    return column, value
