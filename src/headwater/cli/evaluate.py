"""`headwater evaluate`: is it right? So far by retrieval, whose right answers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from headwater.cli import options as o
from headwater.cli.board import board
from headwater.cli.evaluate_index import index
from headwater.cli.output import console, emit
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.evaluation.reranking import Comparison
    from headwater.index.index import Index
    from headwater.methods.method import Method

LEXICAL = "bm25"
USUAL = ("trackstar", "gradcos", LEXICAL, "random")
NEED_FEATURES = ("trackstar", "gradcos")


class _OrIndex(TyperGroup):
    """`headwater evaluate OUT` is `headwater evaluate index OUT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in where an index stands in its place."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["index", *args]
        return super().parse_args(ctx, args)


evaluate = typer.Typer(
    name="evaluate",
    cls=_OrIndex,
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


evaluate.command()(board)
evaluate.command()(index)


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
    run: o.Run = None,
    base: o.Base = None,
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
    from headwater.report.retrieval import comparison_record, retrieval_report

    if facts is None:
        raise InputError(
            "There are no facts",
            expected="--facts FILE (JSON Lines), or 'facts' for the demo's",
        )
    if min(same_target, random, lexical, seed) < 0:
        sizes = f"{same_target}, {random}, {lexical} and {seed}"
        raise InputError("Numbers of candidates and the seed are 0 or more", found=sizes)
    found = _compared(dict(locals()))
    if json:
        emit(comparison_record(found))
    else:
        console().print(retrieval_report(found))


def _compared(given: dict[str, Any]) -> Comparison:
    """The comparison, by the names of the parameters of `retrieval`."""
    from headwater.cli.queries import open_index
    from headwater.evaluation.query_sets import load_query_set
    from headwater.evaluation.reranking import Candidates, checked_protocol, compare

    items = load_query_set(given["facts"])
    opening = ("model", "trust_model", "trust_remote_code", "device")
    index = open_index(given["out"], **{name: given[name] for name in opening})
    sizes = (given[name] for name in ("same_target", "random", "lexical", "seed"))
    ftrace = given["protocol"] == "ftrace"
    return compare(
        index,
        items,
        chosen_methods(index, given),
        protocol=checked_protocol(given["protocol"]),
        candidates=Candidates(*sizes),
        lexical=_by_name(LEXICAL) if ftrace and given["lexical"] else None,
        **{name: given[name] for name in ("k", "depth", "seed")},
    )


def chosen_methods(index: Index, given: dict[str, Any]) -> list[Method]:
    """The methods asked for, or the usual ones as far as the index has what they need."""
    from headwater.cli.queries import choose_method
    from headwater.evidence.rankers import parts_of, takes

    names: list[str] | None = given["method"]
    wanted = names or [n for n in USUAL if index.has_features or n not in NEED_FEATURES]
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise InputError("A method is named more than once", found=", ".join(twice))
    options = {n: given[n] for n in ("eval_queries", "run", "base") if given[n] is not None}
    made: list[Method] = []
    for name in wanted:
        mine = {n: v for n, v in options.items() if any(takes(p, n) for p in parts_of(name))}
        made.append(choose_method(name, mine.pop("eval_queries", None), **mine) or _by_name(name))
    unused = [n for n in options if not any(takes(p, n) for one in wanted for p in parts_of(one))]
    if unused:
        raise InputError(
            f"--{unused[0].replace('_', '-')} is for other methods",
            expected="--method trackstar" if "eval_queries" in unused else "--method source",
            found=", ".join(wanted),
        )
    return made


def _by_name(name: str, **options: object) -> Method:
    from headwater.evidence.rankers import method_by_name

    return method_by_name(name, **options)
