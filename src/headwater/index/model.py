"""Loading the model that a manifest names: the same one, and only when its writer is trusted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError, MismatchError
from headwater.index.manifest import Manifest, require_same
from headwater.tasks.texts import Texts

if TYPE_CHECKING:
    from headwater.tasks.causal_lm import CausalLM


def load_task(
    folder: Path, manifest: Manifest, name: str | None, *, trusted: bool, **options: Any
) -> CausalLM:
    """The language model of the index at `folder`.

    Args:
        name: where the same model is instead; it is then trusted.
        trusted: load the model that the manifest names although another user wrote it.
        options: for `CausalLM.load`, in place of what the manifest says (device, for example).

    Raises:
        InputError: when the task cannot be loaded from its description.
        MismatchError: when it is another user's, or not the model the index was built with.
    """
    from headwater.tasks.causal_lm import CausalLM

    record, source = manifest["task"], manifest["source"]
    if record["kind"] == Texts.kind:
        raise InputError(
            "The index was made of texts alone: it has no model",
            expected="evidence that needs none: lexical, verbatim or semantic",
            do="for gradients, or words of the model's own, build one with a model "
            "(headwater index MODEL CORPUS OUT)",
        )
    if record["kind"] != "causal_lm" or not (name or source.get("name")):
        raise InputError(
            "The index does not say where its model is",
            do="name it (--model, or hw.Index.open(path, task=...) for one in hand)",
        )
    foreign = (folder / "manifest.json").stat().st_uid != os.getuid()
    if foreign and not (trusted or name is not None):
        raise MismatchError(
            f"The index was written by another user and names the model {source['name']}",
            do="check it and open with trust_model=True (--trust-model), or give task=...",
        )
    kept = {key: source.get(key) for key in ("dtype", "adapter")}
    fed = ("max_length", "overlap", "truncate", "bos", "eos", "prompt_loss")
    told = kept | {key: record[key] for key in fed} | options
    task = CausalLM.load(name or source["name"], **told)
    require_same(record, task.describe(), "model")
    return task
