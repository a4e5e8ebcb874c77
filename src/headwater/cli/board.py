"""`headwater evaluate board`: all methods on one preset, judged by all its metrics, with costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from headwater.cli import options as o
from headwater.cli.show_board import show_board
from headwater.engine.errors import InputError

CACHE = Path("headwater-cache")

Names = str | None
Scale = Literal["full", "tiny"]


def board(
    *,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="digits, linear, small-lm, facts or scaling."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For board.md, .json, .svg and .png.")
    ] = None,
    cache: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Of trained models and scores, for the next time."),
    ] = CACHE,
    methods: Annotated[
        Names, typer.Option(metavar="A,B", help="Only these, and the controls.")
    ] = None,
    metrics: Annotated[Names, typer.Option(metavar="X,Y", help="Only these.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that train side by side; default: the cores.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    scale: Annotated[str, typer.Option(help="full, or tiny (to see that it runs).")] = "full",
    json: o.Json = False,
) -> None:
    """Train, score and judge: every method by every metric, with intervals and cost.

    The same seed gives the same table but for the costs. Started again, it goes on where it was
    stopped; finished, it is there in seconds.
    """
    from headwater.evaluation.presets import PRESETS, preset_board
    from headwater.evaluation.presets.common import Asked

    if preset is None:
        raise InputError(
            "No preset is named",
            expected="; ".join(f"{name} ({what})" for name, what in PRESETS.items()),
            do="name one: --preset digits",
        )
    asked = Asked(cache.resolve(), _scale(scale), seed, workers, _listed(methods), _listed(metrics))
    found = preset_board(preset, asked)
    show_board(found, out, as_json=json)


def _listed(names: str | None) -> list[str] | None:
    return None if names is None else [one.strip() for one in names.split(",") if one.strip()]


def _scale(name: str) -> Scale:
    if name == "full":
        return "full"
    if name == "tiny":
        return "tiny"
    raise InputError("Unknown scale", expected="full or tiny", found=repr(name))
