"""`headwater rank`: examples, or groups of them, from most to least supporting a set of queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import options as o
from headwater.cli.output import console, emit_lines, warn
from headwater.engine.errors import InputError
from headwater.engine.plain import plain

if TYPE_CHECKING:
    from headwater.methods.method import Method
    from headwater.methods.scoring import Ranked

ROWS = 20
SUFFIXES = (".jsonl", ".csv")


def rank(
    out: o.Out,
    *,
    queries: o.Queries = None,
    by: Annotated[o.Text, typer.Option(metavar="COLUMN", help="Rank groups, not examples.")] = None,
    top: Annotated[int, typer.Option(help="Rows shown at either end.")] = ROWS,
    keep: Annotated[float | None, typer.Option(help="Share from the top marked as kept.")] = None,
    method: o.MethodName = None,
    eval_queries: o.EvalQueries = None,
    damping: o.Damping = None,
    mixing: o.Mixing = None,
    run: o.Run = None,
    base: o.Base = None,
    setting: o.Settings = None,
    modules: o.Modules = None,
    ids: o.Ids = None,
    where: o.Where = None,
    file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Save as .jsonl or .csv.")
    ] = None,
    model: o.OtherModel = None,
    trust_model: o.TrustModel = False,
    trust_remote_code: o.TrustRemoteCode = False,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Rank examples, or groups, for curation.

    From most to least supporting the mean of the queries; OUT is the index.
    """
    if queries is None:
        raise InputError("There are no queries", expected="--queries FILE (JSON Lines)")
    if top < 1:
        raise InputError("--top must be positive", found=top)
    if file is not None and file.suffix not in SUFFIXES:
        raise InputError(
            "A ranking is saved by its suffix", expected=" or ".join(SUFFIXES), found=str(file)
        )
    ranked, chosen = _ranked(dict(locals()))
    rows = [_row(place, one, keep is not None) for place, one in enumerate(ranked, 1)]
    if file is not None:
        _save(file, rows)
        warn(f"{len(rows):,} rows in {file}")
    if json:
        emit_lines(rows)
    elif file is None:
        _show(rows, by, top, f"{chosen.title}, {chosen.unit}")


def _ranked(given: dict[str, Any]) -> tuple[list[Ranked], Method]:
    """The ranking and its method, by the names of the parameters of `rank`."""
    from headwater.cli import queries as q
    from headwater.methods.scoring import rank as rank_examples
    from headwater.methods.scoring import ranking_method

    asked = q.read_queries(given["queries"])
    method = q.method_given(given) or ranking_method(given["by"])
    options = {name: given[name] for name in ("by", "keep", "modules")}
    options |= {"ids": q.read_ids(given["ids"]), "groups": q.parse_groups(given["where"])}
    opening = ("model", "trust_model", "trust_remote_code", "device")
    index = q.open_index(given["out"], **{name: given[name] for name in opening})
    return rank_examples(index, asked, method=method, **options), method


def _row(place: int, one: Ranked, marked: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "rank": place,
        "name": one.name,
        "score": one.score,
        "examples": one.examples,
    }
    return row | {"keep": one.keep} if marked else row


def _save(file: Path, rows: list[dict[str, Any]]) -> None:
    from headwater.report.jsonl import write_csv, write_lines

    write = write_csv if file.suffix == ".csv" else write_lines
    write(file, plain(rows))


def _show(rows: list[dict[str, Any]], by: str | None, ends: int, unit: str) -> None:
    from headwater.report.ranking import ranking_table

    console().print(ranking_table(rows, by, ends, unit))
