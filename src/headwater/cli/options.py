"""The options that several commands share, as typer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Text = str | None
Number = int | None

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder, a hub name, 'smollm2', or '-' for none.")
]
CorpusArg = Annotated[
    str,
    typer.Argument(metavar="CORPUS", help="A file, folder, glob, URL or hf://name of examples."),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The folder of the index.")]

Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=YOURS", help="Rename, as text=body. Repeatable."),
]
Kind = Annotated[Text, typer.Option(help="text, prompt, messages or tokens, where several fit.")]
MaxLength = Annotated[Number, typer.Option(help="Tokens of a chunk: the training's own.")]
Overlap = Annotated[int, typer.Option(help="Tokens repeated between chunks of a document.")]
Packing = Annotated[
    bool, typer.Option("--packing", help="Documents end to end, cut into full windows.")
]
Truncate = Annotated[bool, typer.Option("--truncate", help="Keep a document's first chunk only.")]
Bos = Annotated[
    bool | None,
    typer.Option("--bos/--no-bos", help="BOS before each document; default: the tokenizer's."),
]
Eos = Annotated[
    bool | None,
    typer.Option("--eos/--no-eos", help="EOS after each document; default: the tokenizer's."),
]
PromptLoss = Annotated[bool, typer.Option("--prompt-loss", help="Prompts were learnt, too.")]
Dtype = Annotated[
    Text,
    typer.Option(help="float32, bfloat16, float16, or autocast (to bfloat16)."),
]
Device = Annotated[Text, typer.Option(help="cpu, cuda, cuda:1, ...")]
Adapter = Annotated[Text, typer.Option(help="Folder or hub name of a PEFT adapter.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code from the model's repository.")
]
Projection = Annotated[
    str, typer.Option(help="ROWSxCOLUMNS a module, eigen:ROWSxCOLUMNS, blocks[:...], or none.")
]
Parameters = Annotated[str, typer.Option(help="linear, linear+base or all.")]
Modules = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Only modules of such names ('*.mlp.*'). Repeatable."),
]
Output = Annotated[str, typer.Option(help="loss, or margin (for TRAK).")]
Moment = Annotated[
    Text,
    typer.Option(
        "--second-moment",
        metavar="WHERE",
        help="Optimizer correction: 'estimate', an optimizer.pt, or a checkpoint folder.",
    ),
]
Exact = Annotated[bool, typer.Option("--exact", help="Second moment element by element (slow).")]
Storage = Annotated[
    str, typer.Option(help="int8, float16, float32, or rank1, rank2, ... (see LoRIF).")
]
Seed = Annotated[int, typer.Option(help="Of the projections.")]
Budget = Annotated[Number, typer.Option(help="Tokens of a batch.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out and list what cannot be used.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Queries = Annotated[
    Text,
    typer.Option(
        metavar="FILE",
        help="JSON Lines: prompt, completion, instead_of?, id?; or a set of ours: facts, "
        "commonsense, arithmetic, open.",
    ),
]
MethodName = Annotated[
    Text,
    typer.Option(
        "--method",
        help="trackstar, gradcos, graddot, logra, relatif, trak; bm25, tantivy, dense, repsim.",
    ),
]
InfluenceName = Annotated[
    Text,
    typer.Option(
        "--method",
        help="Of influence: trackstar, gradcos, logra, ekfac, ... (see: headwater methods).",
    ),
]
Run = Annotated[
    Text,
    typer.Option(
        "--run", metavar="FOLDER", help="Of a training, for tracin, source, less, dda, magic."
    ),
]
Base = Annotated[
    Text,
    typer.Option(
        "--base",
        metavar="FOLDER",
        help="Weights before the training, for dda, magic and whatever trains again.",
    ),
]
EvalQueries = Annotated[
    Text,
    typer.Option(
        metavar="FILE", help="Held-out queries of the same template, for TrackStar's task Hessian."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other parameter of the method, such as segments=3 of source. Repeatable.",
    ),
]
Damping = Annotated[
    float | None, typer.Option(help="Of the curvature, relative to its mean eigenvalue.")
]
Mixing = Annotated[
    float | None, typer.Option(help="TrackStar's lambda, fixed; default: the paper's rule.")
]
Ids = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Only these examples: one id a line.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN=VALUE", help="Only examples of this group. Repeatable."),
]
Filter = Annotated[
    Text,
    typer.Option(
        metavar="TEXT", help="Only examples that pass, such as 'capital source:wiki year>1999'."
    ),
]
Fused = Annotated[
    str, typer.Option(help="rrf (reciprocal ranks), or the kind whose order is shown.")
]
Candidates = Annotated[
    Text,
    typer.Option(metavar="KIND:COUNT", help="Influence only on the first COUNT by that kind."),
]
Tokenizer = Annotated[Text, typer.Option(help="Of the verbatim search; default: the model's own.")]
OtherModel = Annotated[
    Text, typer.Option("--model", help="Where the index's model is now, if it moved.")
]
TrustModel = Annotated[
    bool, typer.Option("--trust-model", help="Load the model another user's index names.")
]
