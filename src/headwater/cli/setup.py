"""From what was typed to a task, a corpus, features and a plan: the shared part of two commands.

`Setup` holds the options by their own names, so that a command hands over all it was given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.gradients.features import Features, LayerBlocks, TwoSided
    from headwater.index.build import Plan
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.texts import Texts

NO_MODEL = "-"
OWN_STATE = "checkpoint"  # a second moment: each checkpoint's own optimizer state


@dataclass
class Setup:
    """What `estimate` and `index` are told of model, corpus, features and plan."""

    model: str
    corpus: str
    column: list[str] | None = None
    kind: str | None = None
    max_length: int | None = None
    overlap: int = 0
    truncate: bool = False
    packing: bool = False
    bos: bool | None = None
    eos: bool | None = None
    prompt_loss: bool = False
    dtype: str | None = None
    device: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False
    projection: str = "16x16"
    parameters: str = "linear"
    modules: list[str] | None = None
    output: str = "loss"
    second_moment: str | None = None
    exact: bool = False
    storage: str = "int8"
    seed: int = 0
    budget: int | None = None
    shard_rows: int | None = None
    worker: str | None = None
    skip_bad: bool = False
    no_features: bool = False
    run: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Setup:
        """From a command's parameters; those of other names are not ours."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in options.items() if name in names})

    def open_corpus(self) -> Corpus:
        """The corpus; cheap, and so done before the model is loaded."""
        from headwater.corpus.corpus import Corpus

        columns = parse_columns(self.column or [])
        return Corpus.open(self.corpus, columns=columns, kind=self.kind, skip_bad=self.skip_bad)

    def packed(self, task: Any, corpus: Corpus) -> Corpus:
        """The corpus as windows, where the training packed its documents."""
        from headwater.tasks.packing import pack

        return pack(task, corpus) if self.packing else corpus

    def load_texts(self) -> Texts | CausalLM:
        """The task of an index without features: `-` is a corpus without a model."""
        from headwater.tasks.texts import Texts

        return Texts() if self.model == NO_MODEL else self.load_task()

    def load_task(self) -> CausalLM:
        """The model with its tokenizer, as it was trained."""
        from headwater.tasks.causal_lm import CausalLM

        # A relative folder would be lost to whoever opens the index from elsewhere.
        local = Path(self.model).expanduser()
        adapter = self.adapter
        return CausalLM.load(
            str(local.resolve()) if local.is_dir() else self.model,
            dtype=self.dtype,
            device=self.device,
            adapter=str(Path(adapter).resolve()) if adapter and Path(adapter).is_dir() else adapter,
            trust_remote_code=self.trust_remote_code,
            max_length=self.max_length,
            overlap=self.overlap,
            truncate=self.truncate,
            bos=self.bos,
            eos=self.eos,
            prompt_loss=self.prompt_loss,
        )

    def check(self) -> None:
        """Parse all that can be parsed; raises InputError before anything is loaded."""
        if self.model == NO_MODEL and not self.no_features:
            raise InputError(
                "Features need a model", expected="a model, or --no-features", found=NO_MODEL
            )
        parse_projection(self.projection)
        parse_columns(self.column or [])
        self.plan()
        if self.modules and self.parameters != "linear":
            raise InputError(
                "--modules already says which parameters are attributed",
                expected="--modules or --parameters",
                found=f"--parameters {self.parameters}",
            )
        if self.run is None and self.second_moment == OWN_STATE:
            raise InputError(
                "A second moment of each checkpoint's own needs a run", expected="--run FOLDER"
            )
        if self.exact and self.second_moment in (None, "estimate", OWN_STATE):
            raise InputError("--exact needs a state", expected="--second-moment PATH")

    def features(self, task: CausalLM) -> Features:
        """What is to be stored; reads the optimizer's state where one is named."""
        from headwater.gradients.features import Features

        parameters: Any = self.parameters
        if self.modules:
            patterns = self.modules
            parameters = lambda name, _: any(fnmatchcase(name, p) for p in patterns)  # noqa: E731
        moment: Any = None if self.second_moment == OWN_STATE else self.second_moment
        if moment not in (None, "estimate"):
            from headwater.training.second_moment import load_second_moment

            moment = load_second_moment(moment, task, parameters, exact=self.exact)
        return Features(
            projection=parse_projection(self.projection),
            parameters=parameters,
            output=self.output,  # type: ignore[arg-type] - Features checks it
            second_moment=moment,
            storage=self.storage,  # type: ignore[arg-type] - likewise
            seed=self.seed,
        )

    def plan(self) -> Plan:
        """How the build is run."""
        from headwater.index.build import Plan

        for name, value in (("--budget", self.budget), ("--shard-rows", self.shard_rows)):
            if value is not None and value < 1:
                raise InputError(f"{name} is too small", expected="at least 1", found=value)
        return Plan(self.budget, self.shard_rows, parse_worker(self.worker), self.skip_bad)


def parse_columns(given: Sequence[str]) -> dict[str, str]:
    """`text=body` -> {"text": "body"}."""
    columns: dict[str, str] = {}
    for entry in given:
        ours, found, yours = entry.partition("=")
        if not (ours and found and yours):
            raise InputError("A column is not named", expected="OURS=YOURS", found=repr(entry))
        columns[ours] = yours
    return columns


def parse_projection(text: str) -> TwoSided | LayerBlocks | None:
    """`16x16`, `eigen:16x16`, `blocks`, `blocks:64x64` or `none`."""
    from headwater.gradients.features import LayerBlocks, TopEigenvectors, TwoSided

    if text == "none":
        return None
    if text == "blocks":
        return LayerBlocks()
    match = re.fullmatch(r"(blocks:|eigen:)?(\d+)x(\d+)", text)
    if match is None:
        raise InputError(
            "Unknown projection",
            expected="16x16, eigen:16x16, blocks, blocks:64x64 or none",
            found=repr(text),
        )
    kinds = {None: TwoSided, "eigen:": TopEigenvectors, "blocks:": LayerBlocks}
    return kinds[match[1]](int(match[2]), int(match[3]))


def parse_worker(text: str | None) -> tuple[int, int]:
    """`3/8` (the third of eight, counted from 1) -> (2, 8)."""
    if text is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(
            "There is no such worker", expected="N/COUNT with N from 1 to COUNT", found=text
        )
    return int(match[1]) - 1, int(match[2])
