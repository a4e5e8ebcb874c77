"""`headwater difficulty`: how hard each example was to learn, ranked for data selection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli import options as o
from headwater.cli.output import console, emit_lines, warn
from headwater.engine.errors import InputError

ROWS = 20
SUFFIXES = (".jsonl", ".csv")


def difficulty(
    out: o.Out,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of the training.")],
    *,
    score: Annotated[
        str,
        typer.Option(help="vog, el2n, forgetting, pre-memorization, self-influence or loss."),
    ] = "vog",
    by: Annotated[
        o.Text, typer.Option(metavar="COLUMN", help="Z-score within the groups of a column.")
    ] = None,
    checkpoint: Annotated[
        list[int] | None,
        typer.Option(metavar="PLACE", help="Only this checkpoint, from 0. Repeatable."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="An example is right when all its tokens are.")
    ] = False,
    threshold: Annotated[
        float, typer.Option(help="Nats a token below which an example is memorised.")
    ] = 0.1,
    top: Annotated[int, typer.Option(help="Rows shown at either end.")] = ROWS,
    keep: Annotated[float | None, typer.Option(help="Share marked as kept.")] = None,
    which: Annotated[str, typer.Option(help="Kept: easiest, hardest or middle.")] = "hardest",
    file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Save as .jsonl or .csv.")
    ] = None,
    model: o.OtherModel = None,
    trust_model: o.TrustModel = False,
    trust_remote_code: o.TrustRemoteCode = False,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Rank examples by how hard they were to learn.

    OUT is the index of the training data, RUN the training with its checkpoints. Rank 1 is the
    hardest.
    """
    from headwater.cli.queries import open_index
    from headwater.methods.difficulty import difficulty as difficulty_of
    from headwater.training.run import TrainingRun

    _check(file, top, keep, which)
    trained = TrainingRun.open(run)
    places: dict[str, Any] = {"model": model, "trust_model": trust_model, "device": device}
    index = open_index(out, trust_remote_code=trust_remote_code, **places)
    asked: Any = score  # checked there, as `which` is here
    part: Any = which
    chosen: Any = {"checkpoints": checkpoint, "by": by, "exact": exact, "threshold": threshold}
    result = difficulty_of(index, trained, asked, **chosen)
    rows = [_row(one, keep is not None) for one in result.ranking(keep=keep, which=part)]
    for note in result.notes:
        warn(note)
    if file is not None:
        _save(file, rows)
    if json:
        emit_lines(rows)
    elif file is None:
        _show(rows, top, f"{score}, {result.unit}")


def _check(file: Path | None, top: int, keep: float | None, which: str) -> None:
    """Raise InputError for what would fail only after the work."""
    from headwater.methods.difficulty import WHICH

    if top < 1:
        raise InputError("--top must be positive", found=top)
    if keep is not None and not 0 < keep <= 1:
        raise InputError("keep is a share", expected="above 0, at most 1", found=keep)
    if which not in WHICH:
        raise InputError("Unknown part", expected=" or ".join(WHICH), found=repr(which))
    if file is not None and file.suffix not in SUFFIXES:
        raise InputError(
            "A ranking is saved by its suffix", expected=" or ".join(SUFFIXES), found=str(file)
        )


def _row(one: Any, marked: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"rank": one.rank, "id": one.id, "value": one.value}
    return row | {"keep": one.keep} if marked else row


def _save(file: Path, rows: list[dict[str, Any]]) -> None:
    from headwater.report.jsonl import write_csv, write_lines

    write = write_csv if file.suffix == ".csv" else write_lines
    write(file, rows)
    warn(f"{len(rows):,} rows in {file}")


def _show(rows: list[dict[str, Any]], ends: int, unit: str) -> None:
    from headwater.report.ranking import ranking_table

    named = [{**row, "name": row["id"], "score": row["value"]} for row in rows]
    console().print(ranking_table(named, None, ends, unit))
