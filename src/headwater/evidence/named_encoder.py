"""Sentence encoders that the `sentence_transformers` package loads: by hub name, or other folders.

What can be told beforehand is told at once: a folder that is not there, or that holds a language
model (the package would take the mean of its hidden states without a word). A hub that does not
answer is asked once, and then only the cache is looked at; the library alone would try each file
six times.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.files import read_json
from headwater.evidence.encoder import prompts_of, read_encoder

logger = logging.getLogger(__name__)

WAIT = 5.0  # seconds for the hub's answer

Array = np.ndarray[Any, Any]


class SentenceTransformerEncoder:
    """Any model that the `sentence_transformers` package loads, by hub name or folder."""

    def __init__(
        self,
        name: str,
        *,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        device: str | None = None,
    ) -> None:
        _check_place(name)
        if importlib.util.find_spec("sentence_transformers") is None:
            raise InputError(
                f"The encoder {name} needs a package that is not installed",
                expected="a folder in the layout of sentence-transformers, or the package",
                do="run pip install 'headwater[semantic]'",
            )
        self.name, self.device = name, device
        self._given = (query_prefix, passage_prefix)

    def describe(self) -> dict[str, Any]:
        """Name and prefixes; None = what the model itself says."""
        query, passage = self._given
        return {"encoder": self.name, "query_prefix": query, "passage_prefix": passage}

    def encode(self, texts: Sequence[str], *, query: bool) -> Array:
        """Vectors of unit length, float32 [texts, d]; longer texts are cut as the package does."""
        own = prompts_of(getattr(self._model, "prompts", None) or {}, None)
        prefix = self._given[not query]
        prefix = own[not query] if prefix is None else prefix
        found = self._model.encode(
            list(texts), prompt=prefix, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(found, dtype=np.float32)

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer  # pyright: ignore
        except ImportError as error:
            raise InputError(
                "The package sentence_transformers could not be imported",
                found=" ".join(str(error).split())[:200],
                do="install what it lacks: pip install 'headwater[semantic]'",
            ) from error
        if Path(self.name).is_dir() or hub_answers(self.name):
            return read_encoder(SentenceTransformer, self.name, device=self.device)
        try:
            return read_encoder(
                SentenceTransformer, self.name, device=self.device, local_files_only=True
            )
        except InputError as error:
            raise InputError(
                f"There is no encoder {self.name} at hand",
                expected="a folder, a name in the cache of the hub, or a hub that can be reached",
                found="no such folder, nothing in the cache, and no answer from the hub",
            ) from error


def _check_place(name: str) -> None:
    """Raise InputError for a folder that is not there, or holds no sentence encoder."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        # On the hub it is owner/name, or the name alone for those of sentence-transformers.
        if name.count("/") > 1 or name.startswith((".", "/", "~")) or "\\" in name:
            raise InputError(
                "There is no such encoder", expected="a folder, or a hub name", found=name
            )
        return
    if (folder / "modules.json").exists() or not (folder / "config.json").exists():
        return
    config: Any = read_json(folder / "config.json")
    kinds = [str(one) for one in config.get("architectures") or ()]
    if any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise InputError(
            f"{name} holds a language model, not a sentence encoder",
            expected="a folder in the layout of sentence-transformers (with modules.json)",
            found=", ".join(kinds),
            do="take an encoder, or the model's own hidden states: hw.RepSim()",
        )
    logger.warning(
        "%s has no modules.json: sentence_transformers takes the mean of its hidden states, which "
        "means little unless the model was trained for it",
        name,
    )


def hub_answers(name: str) -> bool:
    """Whether the hub can be reached now; asked once, without the library's retries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(f"{constants.ENDPOINT}/api/models/{name}", timeout=WAIT)
    except Exception:  # whichever client it is, and whatever keeps it from the hub
        return False
    return True
