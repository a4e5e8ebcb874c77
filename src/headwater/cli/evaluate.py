"""`headwater evaluate`: is it right? So far by retrieval, whose right answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import options as o
from headwater.cli.output import console, emit
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.methods.method import Method

LEXICAL = "bm25"
USUAL = ("trackstar", "gradcos", LEXICAL, "random")
NEED_FEATURES = ("trackstar", "gradcos")

evaluate = typer.Typer(
    name="evaluate",
    help="Ground truth with confidence intervals, for any set of methods.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Facts = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="JSON Lines: prompt, completion, gold (ids); or 'facts', the demo's."
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="To compare; A+B fuses two, A:200:B has B score the first 200 of A. Repeatable.",
    ),
]


@evaluate.callback()
def _top() -> None:  # pyright: ignore[reportUnusedFunction] - typer calls it
    """Measure methods."""


@evaluate.command()
def retrieval(
    out: o.Out,
    *,
    facts: Facts = None,
    method: Methods = None,
    protocol: Annotated[str, typer.Option(help="open, or ftrace (rerank candidates).")] = "open",
    k: Annotated[int, typer.Option("--k", help="Cut of success and recall.")] = 10,
    depth: Annotated[int, typer.Option(help="Of the rankings (open).")] = 100,
    same_target: Annotated[
        int, typer.Option(help="Candidates that hold the same answer (ftrace).")
    ] = 100,
    random: Annotated[int, typer.Option(help="Random candidates (ftrace).")] = 100,
    lexical: Annotated[int, typer.Option(help="Candidates from BM25 (ftrace).")] = 100,
    eval_queries: o.EvalQueries = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    model: o.OtherModel = None,
    trust_model: o.TrustModel = False,
    trust_remote_code: o.TrustRemoteCode = False,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Do methods put the examples that state a fact first?

    MRR, success@k and recall@k with intervals, and paired differences to the first method.
    """
    from headwater.cli.queries import open_index
    from headwater.evaluation.query_sets import load_query_set
    from headwater.evaluation.reranking import Candidates, checked_protocol, compare

    if facts is None:
        raise InputError(
            "There are no facts",
            expected="--facts FILE (JSON Lines), or 'facts' for the demo's",
        )
    if min(same_target, random, lexical, seed) < 0:
        sizes = f"{same_target}, {random}, {lexical} and {seed}"
        raise InputError("Numbers of candidates and the seed are 0 or more", found=sizes)
    items = load_query_set(facts)
    index = open_index(
        out,
        model=model,
        trust_model=trust_model,
        trust_remote_code=trust_remote_code,
        device=device,
    )
    found = compare(
        index,
        items,
        _methods(index, method, eval_queries),
        protocol=checked_protocol(protocol),
        k=k,
        depth=depth,
        candidates=Candidates(same_target, random, lexical, seed),
        lexical=_by_name(LEXICAL) if protocol == "ftrace" and lexical else None,
        seed=seed,
    )
    from headwater.report.retrieval import comparison_record, retrieval_report

    if json:
        emit(comparison_record(found))
    else:
        console().print(retrieval_report(found))


def _methods(index: Index, names: list[str] | None, eval_queries: Path | None) -> list[Method]:
    """The methods asked for, or the usual ones as far as the index has what they need."""
    from headwater.cli.queries import read_queries

    wanted = names or [n for n in USUAL if index.has_features or n not in NEED_FEATURES]
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise InputError("A method is named more than once", found=", ".join(twice))
    from headwater.evidence.rankers import parts_of

    if eval_queries is None:
        return [_by_name(name) for name in wanted]
    mixed = [name for name in wanted if "trackstar" in parts_of(name)]
    if not mixed:
        raise InputError(
            "--eval-queries is for TrackStar's task Hessian",
            expected="--method trackstar",
            found=", ".join(wanted),
        )
    held_out = read_queries(eval_queries)
    return [
        _by_name(name, eval_queries=held_out) if name in mixed else _by_name(name)
        for name in wanted
    ]


def _by_name(name: str, **options: object) -> Method:
    from headwater.evidence.rankers import method_by_name

    return method_by_name(name, **options)
