"""`headwater estimate` and `headwater index`: what a build will cost, and the build."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import options as o
from headwater.cli.output import emit, facts, warn
from headwater.cli.setup import NO_MODEL, Setup
from headwater.engine.progress import clock

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.training.run import TrainingRun

TICK = 0.02  # seconds by which a file system's clock may be behind


def estimate(
    context: typer.Context,
    model: o.Model,
    corpus: o.CorpusArg,
    *,
    column: o.Columns = None,
    kind: o.Kind = None,
    max_length: o.MaxLength = None,
    overlap: o.Overlap = 0,
    truncate: o.Truncate = False,
    packing: o.Packing = False,
    bos: o.Bos = None,
    eos: o.Eos = None,
    prompt_loss: o.PromptLoss = False,
    dtype: o.Dtype = None,
    device: o.Device = None,
    adapter: o.Adapter = None,
    trust_remote_code: o.TrustRemoteCode = False,
    projection: o.Projection = "16x16",
    parameters: o.Parameters = "linear",
    modules: o.Modules = None,
    output: o.Output = "loss",
    second_moment: o.Moment = None,
    exact: o.Exact = False,
    storage: o.Storage = "int8",
    seed: o.Seed = 0,
    budget: o.Budget = None,
    skip_bad: o.SkipBad = False,
    json: o.Json = False,
) -> None:
    """Tell what an index will cost.

    Time, disk and memory, and which parameters it covers, before building it.
    """
    from headwater.evidence.token_store import build_cost
    from headwater.index.estimate import estimate as measure
    from headwater.report.cost import estimate_rows, verbatim_row

    setup = Setup.of(context.params)
    if setup.model == NO_MODEL:
        _estimate_texts(setup, as_json=json)
        return
    setup.check()
    opened = setup.open_corpus()
    task = setup.load_task()
    opened = setup.packed(task, opened)
    result = measure(task, opened, setup.features(task), setup.plan())
    memory, disk = build_cost(result.tokens, task.vocabulary)
    if json:
        emit(result.to_dict() | {"verbatim": {"disk_bytes": disk, "peak_memory_bytes": memory}})
    else:
        facts([*estimate_rows(result), verbatim_row(disk, memory)])


def _estimate_texts(setup: Setup, *, as_json: bool) -> None:
    """Of a corpus without a model: its examples, and evidence that needs no gradients."""
    from headwater.evidence.cost import text_cost
    from headwater.report.cost import text_rows

    found = text_cost(setup.open_corpus(), skip_bad=setup.skip_bad)
    if as_json:
        emit(found.to_dict())
    else:
        facts(text_rows(found))


def index(
    context: typer.Context,
    model: o.Model,
    corpus: o.CorpusArg,
    out: o.Out,
    *,
    column: o.Columns = None,
    kind: o.Kind = None,
    max_length: o.MaxLength = None,
    overlap: o.Overlap = 0,
    truncate: o.Truncate = False,
    packing: o.Packing = False,
    bos: o.Bos = None,
    eos: o.Eos = None,
    prompt_loss: o.PromptLoss = False,
    dtype: o.Dtype = None,
    device: o.Device = None,
    adapter: o.Adapter = None,
    trust_remote_code: o.TrustRemoteCode = False,
    projection: o.Projection = "16x16",
    parameters: o.Parameters = "linear",
    modules: o.Modules = None,
    output: o.Output = "loss",
    second_moment: o.Moment = None,
    exact: o.Exact = False,
    storage: o.Storage = "int8",
    seed: o.Seed = 0,
    budget: o.Budget = None,
    shard_rows: Annotated[o.Number, typer.Option(help="Rows of a shard.")] = None,
    worker: Annotated[o.Text, typer.Option(metavar="N/COUNT", help="As 3/8: one of eight.")] = None,
    skip_bad: o.SkipBad = False,
    no_features: Annotated[
        bool, typer.Option("--no-features", help="Examples only, for evidence without gradients.")
    ] = False,
    append: Annotated[bool, typer.Option("--append", help="Add to a finished index.")] = False,
    run: Annotated[
        o.Text,
        typer.Option(metavar="FOLDER", help="Of a training: a feature set for each checkpoint."),
    ] = None,
    json: o.Json = False,
) -> None:
    """Build an index, or go on with one.

    Stopped by whatever means and started again with the same words, it goes on where it was.
    """
    setup = Setup.of(context.params)
    setup.check()
    checkpoints = None if run is None else _open_run(run)  # fails before any work
    started = time.time() - TICK
    made = _append(setup, out) if append else _build(setup, out)
    if made is not None and checkpoints is not None:
        _add_sets(setup, made, checkpoints)
    seconds = time.time() - started
    if made is None:
        warn(f"this worker's shards are done; others are not yet: headwater inspect {out}")
        if json:
            emit({"index": str(out), "complete": False, "seconds": round(seconds, 3)})
        return
    _tell(made, _tokens(made, started), seconds, as_json=json)


def _build(setup: Setup, out: Path) -> Index | None:
    """The finished index; None while other workers still have shards to do."""
    from headwater.index.build import build
    from headwater.index.index import Index
    from headwater.index.manifest import read_manifest

    corpus = setup.open_corpus()
    if setup.no_features:
        texts = setup.load_texts()
        build(out, texts, setup.packed(texts, corpus), None, setup.plan())
        return Index.open(out)
    task = setup.load_task()
    corpus = setup.packed(task, corpus)
    build(out, task, corpus, setup.features(task), setup.plan())
    return Index.open(out, task) if read_manifest(out)["complete"] else None


def _open_run(folder: str) -> TrainingRun:
    from headwater.training.run import TrainingRun

    return TrainingRun.open(folder)


def _add_sets(setup: Setup, index: Index, run: TrainingRun) -> None:
    """Features at every checkpoint of a run, beside the index's own."""
    from headwater.cli.setup import OWN_STATE
    from headwater.training.checkpoint_features import add_checkpoints

    own = setup.second_moment == OWN_STATE
    task = setup.load_task()
    index = type(index).open(index.path, task)
    add_checkpoints(index, run, setup.features(task), setup.plan(), own_moments=own)


def _append(setup: Setup, out: Path) -> Index:
    from headwater.cli.queries import open_index

    corpus = setup.open_corpus()
    index = open_index(
        out,
        model=None if setup.model == NO_MODEL else setup.model,
        device=setup.device,
        trust_remote_code=setup.trust_remote_code,
        unfinished=True,  # an append that was stopped goes on
    )
    if setup.packing:
        corpus = setup.packed(index.task, corpus)
    index.append(corpus, setup.plan())
    return index


def _tokens(index: Index, since: float) -> int:
    """Tokens of the shards that were made after that time."""
    from headwater.index.shard_job import mark_path

    shards = index.manifest["corpus"]["shards"]
    marks = {shard["name"]: mark_path(index.path, shard["name"]) for shard in shards}
    if not index.has_features:
        return 0
    return sum(s["tokens"] for s in shards if marks[s["name"]].stat().st_mtime >= since)


def _tell(index: Index, tokens: int, seconds: float, *, as_json: bool) -> None:
    from headwater.report.contents import content_rows, contents

    record: dict[str, Any] = contents(index.path)
    record["seconds"] = round(seconds, 3)
    record["tokens_per_second"] = round(tokens / seconds, 1) if tokens else None
    if as_json:
        emit(record)
        return
    rows = content_rows(record)
    if tokens:
        rate = f"{tokens:,} tokens in {clock(seconds)} ({tokens / seconds:,.0f} tokens/s in all)"
        rows.append(("time", rate))
    elif index.has_features:
        rows.append(("time", f"nothing left to do ({clock(seconds)})"))
    else:
        rows.append(("time", clock(seconds)))
    facts(rows)
    kinds = "" if index.has_features else " --evidence lexical,verbatim"
    warn(f'ask it: headwater ask {index.path} "a prompt" " its completion"{kinds}')
