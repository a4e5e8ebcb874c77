"""`headwater verify`: are the examples that were found behind the words?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import options as o
from headwater.cli.output import console, emit
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.evaluation.verification import Verification
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.tasks.query import Query

TrainedBy = Annotated[
    str | None,
    typer.Option(
        "--run", metavar="FOLDER", help="Of the model's training: its optimizer, rate and recipe."
    ),
]
Before = Annotated[
    str | None,
    typer.Option("--base", metavar="FOLDER", help="The weights before it, to train again from."),
]


def verify(
    out: o.Out,
    prompt: Annotated[str, typer.Argument(help="The text before the words.")],
    completion: Annotated[
        str | None, typer.Argument(help="The words; left out, the model's own.")
    ] = None,
    *,
    method: o.InfluenceName = None,
    eval_queries: o.EvalQueries = None,
    damping: o.Damping = None,
    mixing: o.Mixing = None,
    setting: o.Settings = None,
    top: Annotated[int, typer.Option(help="Texts put to the test.")] = 5,
    group: Annotated[str | None, typer.Option(help="Test this whole group of --by.")] = None,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of --group.")] = None,
    run: TrainedBy = None,
    base: Before = None,
    tail_patch: Annotated[bool, typer.Option(help="One optimizer step on each example.")] = True,
    retrain: Annotated[
        bool | None,
        typer.Option(help="Train again without them; default: where --run and --base are given."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each kind.")] = 1,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the step; default: the run's.")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adamw or sgd; default: by the run's state.")
    ] = None,
    random: Annotated[int, typer.Option(help="Random examples that are stepped on.")] = 20,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Trainings side by side.")] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keeps trainings; default: in OUT.")
    ] = None,
    model: o.OtherModel = None,
    trust_model: o.TrustModel = False,
    trust_remote_code: o.TrustRemoteCode = False,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Put an answer to the test: what happens without the examples it names?

    Beside random examples and lexical ones. COMPLETION are words after PROMPT; OUT is the index.
    """
    from headwater.report.verify import verification_report

    made = _verified(dict(locals()))
    if json:
        emit(made.to_dict())
    else:
        console().print(verification_report(made))


def _verified(given: dict[str, Any]) -> Verification:
    """The verification, by the names of the parameters of `verify`."""
    from headwater.cli.queries import open_index
    from headwater.evaluation.verify import verify as put_to_test
    from headwater.training.run import TrainingRun

    if (given["group"] is None) != (given["by"] is None):
        raise InputError("A group is named by its column", expected="--group NAME --by COLUMN")
    method = _method(given)
    group = None if given["group"] is None else (given["by"], given["group"])
    run = None if given["run"] is None else TrainingRun.open(given["run"])
    opening = ("model", "trust_model", "trust_remote_code", "device")
    index = open_index(given["out"], **{name: given[name] for name in opening})
    query, notes = _query(index, given["prompt"], given["completion"])
    plain = ("top", "tail_patch", "base", "retrain", "seeds", "learning_rate", "optimizer")
    plain += ("random", "seed", "workers", "cache")
    options: dict[str, Any] = {name: given[name] for name in plain}
    made = put_to_test(index, query, method=method, group=group, run=run, **options)
    made.notes += notes
    return made


def _query(index: Index, prompt: str, completion: str | None) -> tuple[Query, list[str]]:
    """The output to be tested; notes where it is the model's own."""
    from headwater.answer.own_words import own_words
    from headwater.tasks.query import Query

    if completion is not None:
        return Query(prompt, completion), []
    query, *notes = own_words(index, prompt)
    return query, notes


def _method(given: dict[str, Any]) -> Method | None:
    """The method; it is told of the run, too, where it takes one."""
    from headwater.cli.queries import method_given
    from headwater.evidence.rankers import METHODS, parts_of, takes

    mine = dict(given)
    parts = [part for part in parts_of(given["method"] or "trackstar") if part in METHODS]
    for name in ("run", "base"):
        if not any(takes(part, name) for part in parts):
            mine[name] = None
    return method_given(mine)
