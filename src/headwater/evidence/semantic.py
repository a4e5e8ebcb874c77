"""Dense retrieval: which examples mean something similar to the output. Similarity, not cause.

    score(q, z) = max over the windows w of z of <e(w), e(q)>

e is a sentence encoder with vectors of unit length. All embeddings are kept and scanned exactly:
reading them is as fast as memory, so there is no approximate index to go wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError, NumericError
from headwater.evidence.embeddings import Embeddings, build, check_storage, owners_of
from headwater.evidence.encoder import PACKAGED, Encoder, load_encoder, pieces
from headwater.evidence.ranker import TextRanker, decoder
from headwater.evidence.texts import document_text
from headwater.index.store import Store, prepared
from headwater.tasks.texts import encodable

if TYPE_CHECKING:
    from headwater.index.index import Index

Array = np.ndarray[Any, Any]


class Dense(TextRanker):
    """Cosine of sentence embeddings.

    A document longer than the encoder's window is cut into windows that overlap a little, and
    counts with its best one. A document without text has the zero vector, and scores 0.

    Args:
        encoder: an `Encoder`, or what `load_encoder` takes; None = the packaged MiniLM (English).
        storage: of the embeddings, "float16" or "float32".

    Raises:
        InputError: when the encoder is not there.
    """

    name = "dense"
    unit = "cosine of embeddings (similarity; not a cause)"
    needs = "texts, a sentence encoder"
    costs = "the encoder over the corpus once, a scan"

    def __init__(
        self, encoder: Encoder | str | os.PathLike[str] | None = None, *, storage: str = "float16"
    ) -> None:
        super().__init__()
        self.storage = check_storage(storage)
        if encoder is None or isinstance(encoder, str | os.PathLike):
            encoder = load_encoder(encoder)
        self.encoder: Encoder = encoder

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """With the encoder's name, since results are the encoder's."""
        name = str(self.encoder.describe().get("encoder", type(self.encoder).__name__))
        return f"Dense ({'MiniLM' if name == PACKAGED else Path(name).name})"

    def describe(self) -> dict[str, Any]:
        """Name, encoder and storage."""
        return {"method": self.name, "encoder": self.encoder.describe(), "storage": self.storage}

    def _read(self, index: Index) -> Embeddings:
        # Passages do not depend on what is put before queries.
        encoder = {k: v for k, v in self.encoder.describe().items() if k != "query_prefix"}
        settings = {"ranker": self.name, "encoder": encoder, "storage": self.storage}
        return Embeddings(prepared(Store(index, "semantic", settings), self._build, grows=True))

    def _build(self, store: Store) -> None:
        decode = decoder(store.index)

        def make(positions: range) -> tuple[Array, Array]:
            documents = store.index.documents(positions)
            cut = pieces(self.encoder, [document_text(one, decode) for one in documents])
            flat = [piece for part in cut for piece in part]
            owners = owners_of(positions, [len(part) for part in cut])
            return self._encode(flat, query=False), owners

        build(store, make, self.storage, "embeddings")

    def _blocks(self, index: Index, items: Sequence[str]) -> Iterator[tuple[int, Array]]:
        embeddings: Embeddings = self._opened(index)
        yield from embeddings.blocks(self._encode(items, query=True))

    def _encode(self, texts: Sequence[str], *, query: bool) -> Array:
        """Vectors of the texts; the zero vector for those without any."""
        some = [place for place, text in enumerate(texts) if text.strip()]
        # Where there is none, any text tells the dimensions.
        given = [encodable(texts[place]) for place in some] or ["-"]
        found = np.asarray(self.encoder.encode(given, query=query))
        if found.ndim != 2 or len(found) != len(given):
            raise InputError(
                f"The encoder of {self.title} gave something else than vectors",
                expected=f"[{len(given)}, dimensions]",
                found=list(found.shape),
            )
        if not np.isfinite(found).all():
            place = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
            raise NumericError(
                f"The encoder of {self.title} gave numbers that are not finite",
                found=f"for the text {given[place][:60]!r}",
            )
        made = np.zeros((len(texts), found.shape[1]), dtype=np.float32)
        made[some] = found[: len(some)]
        return made
