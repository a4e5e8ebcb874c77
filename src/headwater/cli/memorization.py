"""`headwater memorization`: does the model say things that its corpus holds word for word?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from headwater.cli import options as o
from headwater.cli.output import console, emit, warn
from headwater.cli.prompts import PromptRow, read_prompts
from headwater.engine.errors import InputError
from headwater.engine.plain import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.evidence.infini_gram import InfiniGram
    from headwater.evidence.lookup import Counter, Lookup
    from headwater.evidence.memorization import Memorization
    from headwater.evidence.phrases import PhraseIndex
    from headwater.evidence.verbatim import Verbatim
    from headwater.index.index import Index
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.generate import Generation

Prompts = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="JSON Lines: prompt, domain?, id?; or text, one a line."),
]
Outputs = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Take these instead: JSON Lines with prompt, completion."),
]
Tokenizer = Annotated[
    o.Text,
    typer.Option(metavar="NAME", help="Of the corpus's phrases; default: the model's own."),
]
Corpus = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Look up in this infini-gram index, not in OUT."),
]
CorpusTokenizer = Annotated[
    o.Text, typer.Option(metavar="NAME", help="The one that --corpus was made with.")
]
File = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Save every window, as .jsonl.")
]


def memorization(
    out: o.Out,
    *,
    prompts: Prompts = None,
    outputs: Outputs = None,
    samples: Annotated[int, typer.Option(help="Of each prompt.")] = 5,
    max_tokens: Annotated[int, typer.Option(help="Of a sample.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 = the most probable tokens.")] = 0.7,
    top_k: Annotated[int, typer.Option(help="Draw from so many tokens; 0 = all.")] = 20,
    top_p: Annotated[float, typer.Option(help="Draw from so much probability.")] = 0.8,
    window: Annotated[int, typer.Option(help="Tokens of a window.")] = 6,
    stride: Annotated[int, typer.Option(help="Tokens from window to window.")] = 1,
    threshold: Annotated[float, typer.Option(help="Least p of each token.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the samples and the control.")] = 0,
    tokenizer: Tokenizer = None,
    corpus: Corpus = None,
    corpus_tokenizer: CorpusTokenizer = None,
    file: File = None,
    model: o.OtherModel = None,
    trust_model: o.TrustModel = False,
    trust_remote_code: o.TrustRemoteCode = False,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Look up in the corpus what the model says with certainty.

    Windows of tokens that are all probable, how often the corpus holds them, and a control of
    windows as frequent; OUT is the index, whose model speaks.
    """
    if file is not None and file.suffix != ".jsonl":
        raise InputError("Windows are saved as JSON Lines", expected=".jsonl", found=str(file))
    from headwater.evidence.low_perplexity import Settings
    from headwater.evidence.low_perplexity import memorization as look
    from headwater.evidence.probable_windows import probable_windows

    probable_windows([], window, threshold, stride)  # refuses what cannot be now, not later
    rows = _rows(prompts, outputs)
    theirs = _theirs(corpus, corpus_tokenizer, tokenizer)
    index, task = _open(out, model, trust_model, trust_remote_code, device)
    lookup = _lookup(theirs or _own(index, task, tokenizer), task)
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    if outputs is None:
        sampling |= {"samples": samples, "max_tokens": max_tokens}
        made, asked = _generated(task, rows, sampling), rows
    else:
        made, asked = _given(task, rows)
    domains = [row.domain for row in asked]
    found = look(task, made, lookup, Settings(window, stride, threshold, seed), domains)
    if file is not None:
        _save(file, found, asked)
    ids = [row.id for row in asked]
    _show(found, ids, sampling if outputs is None else {}, as_json=json)


def _rows(prompts: Path | None, outputs: Path | None) -> list[PromptRow]:
    if prompts is not None and outputs is None:
        return read_prompts(prompts)
    if outputs is not None and prompts is None:
        return read_prompts(outputs, completions=True)
    raise InputError(
        "Prompts are missing" if prompts is None else "Prompts and outputs are both given",
        expected="one of --prompts FILE and --outputs FILE",
    )


def _open(
    out: Path, model: str | None, trust_model: bool, trust_remote_code: bool, device: str | None
) -> tuple[Index, CausalLM]:
    """The index and a language model: its own, or for a corpus without one that of --model."""
    from headwater.cli.queries import open_index
    from headwater.index.manifest import read_manifest
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.texts import Texts

    if read_manifest(out)["task"].get("kind") == Texts.kind:
        if model is None:
            raise InputError("The index has no model", do="name one: --model MODEL")
        index = open_index(out, trust_model=trust_model)
        return index, CausalLM.load(model, device=device, trust_remote_code=trust_remote_code)
    index = open_index(
        out,
        model=model,
        trust_model=trust_model,
        trust_remote_code=trust_remote_code,
        device=device,
    )
    task = index.task
    if not isinstance(task, CausalLM):
        raise InputError(
            "Only a language model can be asked for words", found=f"a task of kind {task.kind}"
        )
    return index, task


def _generated(
    task: CausalLM, rows: Sequence[PromptRow], sampling: dict[str, Any]
) -> list[Generation]:
    from headwater.tasks.generate import generate

    return generate(task, [row.prompt for row in rows], **sampling)


def _given(task: CausalLM, rows: Sequence[PromptRow]) -> tuple[list[Generation], list[PromptRow]]:
    """The outputs with their probabilities, and the first row of each distinct prompt."""
    from headwater.evidence.token_probabilities import given_outputs

    made = given_outputs(task, [(row.prompt, row.completion or "") for row in rows])
    first: dict[int, PromptRow] = {}
    for row, one in zip(rows, made, strict=True):
        first.setdefault(one.index, row)
    return made, [first[number] for number in sorted(first)]


def _theirs(
    folder: Path | None, corpus_tokenizer: str | None, tokenizer: str | None
) -> InfiniGram | None:
    """The corpus that others have indexed; None where the index's own is asked."""
    if folder is None and corpus_tokenizer is None:
        return None
    if folder is None or corpus_tokenizer is None or tokenizer is not None:
        raise InputError(
            "The corpus to look up in is not clear",
            expected="--corpus FOLDER with --corpus-tokenizer NAME and without --tokenizer",
        )
    from headwater.evidence.infini_gram import InfiniGram

    return InfiniGram.open(folder, corpus_tokenizer)


def _own(index: Index, task: CausalLM, name: str | None) -> Verbatim:
    """The index's phrases; by the model's own tokens unless another tokenizer is named."""
    from headwater.evidence.tokenizer import TextTokenizer
    from headwater.evidence.verbatim import Verbatim

    own = task.tokenizer.backend_tokenizer.to_str()
    return Verbatim.open(index, name or TextTokenizer.from_json(own, "the model's own"))


def _lookup(phrases: PhraseIndex, task: CausalLM) -> Lookup:
    from headwater.evidence.lookup import lookup_in

    # pyright takes no cached property for the protocol's property
    return lookup_in(cast("Counter", phrases), phrases.tokenizer, task.tokenizer)


def _save(file: Path, found: Memorization, asked: Sequence[PromptRow]) -> None:
    from headwater.report.jsonl import write_lines

    write_lines(file, [plain({"id": asked[one.prompt].id, **asdict(one)}) for one in found.windows])
    warn(f"{len(found.windows):,} windows in {file}")


def _show(
    found: Memorization, ids: Sequence[str], sampling: dict[str, Any], *, as_json: bool
) -> None:
    from headwater.report.memorization import memorization_report, notes

    if as_json:
        record = found.to_dict()
        record["settings"] |= {"sampling": sampling or None}
        emit(record | {"notes": notes(found)})
    else:
        console().print(memorization_report(found, ids))
