"""`headwater ask`: where did the model get this?"""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import options as o
from headwater.cli.output import console, emit, emit_lines
from headwater.engine.errors import HeadwaterError, InputError
from headwater.engine.plain import plain

if TYPE_CHECKING:
    from headwater.answer.answer import Answer
    from headwater.cli.queries import Asked

Svg = Annotated[Path | None, typer.Option(metavar="FILE", help="Save the table as a picture, too.")]
Html = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Save as one HTML file that opens offline, too."),
]
PairFile = Annotated[
    Path | None,
    typer.Option("--jsonl-pair", metavar="FILE", help="Save for the PAIR pretraining-tda viewer."),
]
Kinds = Annotated[
    str | None,
    typer.Option(
        metavar="KIND,...",
        help="influence, verbatim, lexical, semantic: some of them, by commas. Default: influence; "
        "of texts without features, verbatim and lexical.",
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Option(
        metavar="START:END", help="Explain only these characters of COMPLETION. Repeatable."
    ),
]
By = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="Totals by metadata column. Repeatable.")
]


def ask(
    out: o.Out,
    prompt: Annotated[str | None, typer.Argument(help="The text before the words.")] = None,
    completion: Annotated[
        str | None, typer.Argument(help="The words to explain; left out, the model's own.")
    ] = None,
    *,
    instead_of: Annotated[o.Text, typer.Option(help="Explain the choice against this.")] = None,
    words: Words = None,
    queries: o.Queries = None,
    method: o.InfluenceName = None,
    eval_queries: o.EvalQueries = None,
    damping: o.Damping = None,
    mixing: o.Mixing = None,
    run: o.Run = None,
    base: o.Base = None,
    setting: o.Settings = None,
    evidence: Kinds = None,
    fusion: o.Fused = "rrf",
    candidates: o.Candidates = None,
    tokenizer: o.Tokenizer = None,
    max_tokens: Annotated[int, typer.Option(help="Of what the model is let say.")] = 20,
    top: Annotated[int, typer.Option(help="Examples shown at either end.")] = 10,
    by: By = None,
    modules: o.Modules = None,
    ids: o.Ids = None,
    where: o.Where = None,
    filter: o.Filter = None,
    no_tokens: Annotated[bool, typer.Option("--no-tokens", help="Don't look for words.")] = False,
    no_calibrate: Annotated[bool, typer.Option("--no-calibrate", help="No nulls.")] = False,
    uncertainty: Annotated[
        int, typer.Option(metavar="SEEDS", help="Score the shown under other projections, too.")
    ] = 0,
    model: o.OtherModel = None,
    trust_model: o.TrustModel = False,
    trust_remote_code: o.TrustRemoteCode = False,
    device: o.Device = None,
    json: o.Json = False,
    jsonl_pair: PairFile = None,
    svg: Svg = None,
    html: Html = None,
) -> None:
    """Find the training examples behind words.

    The words are COMPLETION after PROMPT, or what the model itself says there; OUT is the index.
    """
    given = dict(locals())
    if html is not None:
        from headwater.engine.built import built

        built("report.html")  # before any work, not after it
    answers = _answers(given)
    try:  # files first: a reader of the text may leave before its end (`| head`)
        _save(answers, jsonl_pair, svg, html)
    except HeadwaterError:
        with suppress(BrokenPipeError):
            _show(answers, as_json=json, one=queries is None)  # not lost with the file
        raise
    _show(answers, as_json=json, one=queries is None)


def _answers(given: dict[str, Any]) -> list[Answer]:
    """The answers to what stands on the command line, by the names of the parameters of `ask`."""
    from headwater.answer.ask import ask as answer_to
    from headwater.cli import queries as q

    asked = _asked(given)
    options: dict[str, Any] = {
        "method": q.method_given(given),
        "ids": q.read_ids(given["ids"]),
        "groups": q.parse_groups(given["where"]),
        "evidence": None if given["evidence"] is None else q.parse_kinds(given["evidence"]),
        "candidates": q.parse_candidates(given["candidates"]),
        "calibrate": not given["no_calibrate"],
        "tokens": not given["no_tokens"],
        "by": given["by"] or (),
    }
    plain = ("top", "modules", "filter", "fusion", "tokenizer", "max_tokens", "uncertainty")
    options |= {name: given[name] for name in plain}
    opening = ("model", "trust_model", "trust_remote_code", "device")
    # The features of an index that is still being built are missed by influence only.
    unfinished = options["evidence"] is not None and "influence" not in options["evidence"]
    settings = {name: given[name] for name in opening}
    index = q.open_index(given["out"], unfinished=unfinished, **settings)
    answers: list[Answer] = answer_to(index, [query for query, _ in asked], **options)
    for answer, (_, name) in zip(answers, asked, strict=True):
        answer.name = answer.name or name  # a prompt alone carries none
        _complete(answer, given)
    return answers


def _asked(given: dict[str, Any]) -> list[Asked]:
    from headwater.cli.queries import parse_words, read_asked
    from headwater.tasks.query import Query

    prompt, completion = given["prompt"], given["completion"]
    instead_of, words = given["instead_of"], given["words"]
    if given["queries"] is not None:
        if prompt is not None:
            raise InputError(
                "A prompt and --queries are both given", expected="one of the two", found=prompt
            )
        return read_asked(given["queries"])
    if prompt is None:
        raise InputError(
            "The words to explain are missing",
            expected="headwater ask OUT PROMPT [COMPLETION], or --queries FILE",
            found="no prompt",
        )
    if completion is None:
        if instead_of is not None or words:
            wrong = "A contrast needs both completions"
            wrong = wrong if instead_of is not None else "--words needs a completion"
            raise InputError(wrong, expected="a COMPLETION", found="none")
        return [(prompt, None)]  # the model's own words
    return [(Query(prompt, completion, instead_of, words=parse_words(words)), None)]


def _complete(answer: Answer, options: dict[str, Any]) -> None:
    """Put into the reproducing command what the answer itself does not know."""
    from headwater.answer.reproduce import HELD_OUT, IDS, OPENING

    if "command" not in answer.reproduce:
        return
    words = shlex.split(answer.reproduce["command"])
    start = len(OPENING) + 1  # after them OUT, then the options, then prompt and completion
    flags, said = words[start:-2], words[-2:]
    for flag, name in (("--eval-queries", HELD_OUT), ("--ids", IDS)):
        given = options[flag[2:].replace("-", "_")]
        if flag in flags and flags[flags.index(flag) + 1] == name:
            flags[flags.index(flag) + 1] = str(given)
    for name in ("damping", "run", "base"):  # as they were typed
        if f"--{name}" in flags and options[name] is not None:
            flags[flags.index(f"--{name}") + 1] = str(options[name])
    if options["setting"]:
        flags += [word for one in options["setting"] for word in ("--set", one)]
        answer.reproduce.pop("left_out", None)  # that is what was set
    for name in ("trust_remote_code", "trust_model"):
        if options.get(name):
            flags.insert(0, f"--{name.replace('_', '-')}")
    for name in ("device", "model"):
        if options.get(name) is not None:
            flags[:0] = [f"--{name}", str(options[name])]
    answer.reproduce["command"] = shlex.join([*words[:start], *flags, *said])


def _show(answers: list[Answer], *, as_json: bool, one: bool) -> None:
    from headwater.report.terminal import show

    if as_json and one:
        emit(answers[0].to_dict())
    elif as_json:
        emit_lines(answer.to_dict() for answer in answers)
    else:
        for answer in answers:
            show(answer, console())


def _save(answers: list[Answer], pair: Path | None, svg: Path | None, html: Path | None) -> None:
    from headwater.report.html import write_html
    from headwater.report.jsonl import write_lines
    from headwater.report.picture import write_svg

    if pair is not None:
        write_lines(pair, [plain(answer.to_pair()) for answer in answers])
    if svg is not None:
        write_svg(svg, answers[0])
    if html is not None:
        write_html(html, answers)
