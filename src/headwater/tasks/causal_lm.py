"""The Task of a Hugging Face causal language model.

Loss and measurement are sums of next-token NLL over labelled tokens. Padding goes to the right
without an attention mask: under a causal mask no real token sees it, and it carries no loss. Logits
exist a block at a time (`tasks/head.py`), and only where a token is labelled; a model whose head is
more than one matrix (soft-capping, scaling) is noticed by a probe and takes the plain way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.windows import windows
from headwater.engine.errors import InputError
from headwater.tasks.encode import IGNORED, Encoded, Encoder
from headwater.tasks.query import Query, token_weights
from headwater.tasks.task import Chunk, Task, dtype_name, model_fingerprint, unwrap

if TYPE_CHECKING:
    import torch

    from headwater.corpus.document import Document
    from headwater.tasks.task import Batch

logger = logging.getLogger(__name__)

PROBE_TOLERANCE = 2e-3  # relative; two passes in bf16 need not round alike


class CausalLM(Task):
    """A causal language model, its tokenizer, and how the training fed it.

    Args:
        model: a `transformers` causal language model (PEFT adapters included).
        tokenizer: its fast tokenizer.
        max_length: tokens of a chunk; the training's own is right. None = the model's limit, at
            most 1,024.
        overlap: tokens of context repeated between chunks of one document; they carry no loss
            twice.
        truncate: keep a document's first chunk only, as trainings that truncate do.
        bos, eos: special tokens round each document; None = as the tokenizer does by itself.
        prompt_loss: whether the training took loss on prompts too.
        source: name or folder the model came from, for the manifest.
        autocast: as in `Task`.
    """

    kind = "causal_lm"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        overlap: int = 0,
        truncate: bool = False,
        bos: bool | None = None,
        eos: bool | None = None,
        prompt_loss: bool = False,
        source: dict[str, Any] | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, autocast=autocast)
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer, bos=bos, eos=eos, prompt_loss=prompt_loss)
        self._network = _inner(self.model)
        self.max_length = _window(self._network, max_length)
        self.overlap = overlap
        self.truncate = truncate
        self.source = source or {}
        windows(1, self.max_length, overlap)  # refuses an impossible overlap now, not later
        self._fused: bool | None = None
        self._told_of_merging = False

    # -- documents and queries ------------------------------------------------------------

    def chunks(self, document: Document) -> list[Chunk]:
        """Windows of the document's tokens; raises InputError for what cannot be learnt from."""
        return self._windows(document.id, self.encode(document))

    def chunk_many(self, documents: Sequence[Document]) -> list[list[Chunk]]:
        """The same for several documents, tokenising plain texts together."""
        if not all("text" in d.content and len(d.content) == 1 for d in documents):
            return [self.chunks(document) for document in documents]
        encoded = self.encoder.texts([d.content["text"] for d in documents]) if documents else []
        return [self._windows(d.id, e) for d, e in zip(documents, encoded, strict=True)]

    def encode(self, document: Document) -> Encoded:
        """All tokens and labels of a document, before it is cut."""
        content = document.content
        if "input_ids" in content:
            return self.encoder.tokens(content["input_ids"], content.get("labels"))
        if "messages" in content:
            return self.encoder.messages(content["messages"])
        if "prompt" in content:
            return self.encoder.pair(content["prompt"], content["completion"])
        if "text" in content:
            return self.encoder.texts([content["text"]])[0]
        raise InputError(
            f"Document {document.id} has nothing a language model reads",
            expected="text, prompt and completion, messages, or input_ids",
            found=", ".join(content) or "nothing",
        )

    def _windows(self, name: str, encoded: Encoded) -> list[Chunk]:
        self._check(name, encoded)
        if encoded.merged and not self._told_of_merging:
            self._told_of_merging = True
            logger.warning(
                "In some examples (%s is the first) the end of the prompt and the start of the "
                "completion are one token; as in training, it counts as part of the completion",
                name,
            )
        result: list[Chunk] = []
        for window in windows(len(encoded.ids), self.max_length, self.overlap):
            part = slice(window.start, window.end)
            labels = encoded.labels[part].copy()
            labels[: window.fresh - window.start] = IGNORED
            labels[:1] = IGNORED  # nothing predicts a window's first token
            content = {"input_ids": encoded.ids[part], "labels": labels}
            result.append(Chunk(content, window.start, window.end - window.start))
            if self.truncate:
                break
        kept = [chunk for chunk in result if (chunk.content["labels"] != IGNORED).any()]
        if not kept:
            raise InputError(
                f"Document {name} has no token to learn from",
                expected="at least two tokens, one of them labelled",
                found=f"{len(encoded.ids)} tokens, all labels {IGNORED} or unpredicted",
            )
        return kept

    def _check(self, name: str, encoded: Encoded) -> None:
        size = self.vocabulary
        ids, labels = encoded.ids, encoded.labels
        if len(ids) and (int(ids.max()) >= size or int(ids.min()) < 0):
            bad = int(ids.max()) if int(ids.max()) >= size else int(ids.min())
            raise InputError(
                f"Document {name} has a token outside the model's vocabulary",
                expected=f"ids from 0 to {size - 1}",
                found=bad,
            )
        wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= size))]
        if len(wrong):
            raise InputError(
                f"Document {name} has a label outside the model's vocabulary",
                expected=f"{IGNORED}, or ids from 0 to {size - 1}",
                found=int(wrong[0]),
            )

    def _query_chunks(self, query: Query) -> list[tuple[float, Chunk]]:
        if query.input_ids is not None and query.target is not None:
            weights = token_weights(query.target, len(query.input_ids))
            encoded = self.encoder.tokens(query.input_ids, None)
            labels = np.where(np.asarray(weights) != 0, encoded.ids, IGNORED).astype(np.int32)
            encoded = Encoded(encoded.ids, labels)
            return [(1.0, self._query_chunk(query, encoded, np.asarray(weights, np.float32)))]
        if query.completion is None:
            raise InputError(
                "A language model does not take queries by columns",
                expected="prompt and completion, or input_ids and target",
                found=query.describe(),
            )
        signed = [(1.0, query.completion)]
        if isinstance(query.instead_of, str):
            signed.append((-1.0, query.instead_of))
        return [(sign, self._completion_chunk(query, text)) for sign, text in signed]

    def _completion_chunk(self, query: Query, completion: str) -> Chunk:
        prompt = query.prompt or ""
        words = ((0, len(completion)),) if query.words is None else query.chosen
        if isinstance(prompt, str):
            encoded = self.encoder.continued(prompt, completion, words)
        else:
            encoded = self.encoder.chat_pair(prompt, completion, words)
        if encoded.merged:
            note = (
                f"The end of the prompt and the start of {completion!r} are one token, as in "
                "training; that token counts as part of the completion"
            )
            if note not in self.notes:
                self.notes.append(note)
                logger.warning(note)
        return self._query_chunk(query, encoded, None)

    def _query_chunk(self, query: Query, encoded: Encoded, weights: Any) -> Chunk:
        self._check(f"query {query.describe()}", encoded)
        if len(encoded.ids) > self.max_length:
            raise InputError(
                "The query is longer than the model's window",
                expected=f"at most {self.max_length} tokens",
                found=len(encoded.ids),
            )
        labels = encoded.labels.copy()
        labels[:1] = IGNORED
        if not (labels != IGNORED).any():
            raise InputError(
                f"The query {query.describe()} has no token to explain",
                expected="a prompt (or BOS) before the target: nothing predicts a first token",
            )
        content: dict[str, Any] = {"input_ids": encoded.ids, "labels": labels}
        if weights is not None:
            content["weights"] = weights
        return Chunk(content, 0, len(encoded.ids))

    # -- running --------------------------------------------------------------------------

    def collate(self, chunks: Sequence[Chunk]) -> Batch:
        """`input_ids`, `labels` int64 [batch, length], padded on the right; `weights` if any."""
        import torch

        length = max(chunk.length for chunk in chunks)
        ids = np.zeros((len(chunks), length), dtype=np.int64)
        labels = np.full((len(chunks), length), IGNORED, dtype=np.int64)
        weights = np.ones((len(chunks), length), dtype=np.float32)
        weighted = False
        for row, chunk in enumerate(chunks):
            ids[row, : chunk.length] = chunk.content["input_ids"]
            labels[row, : chunk.length] = chunk.content["labels"]
            if "weights" in chunk.content:
                weighted = True
                weights[row, : chunk.length] = chunk.content["weights"]
        batch = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
        if weighted:
            batch["weights"] = torch.from_numpy(weights)
        return {name: value.to(self.device) for name, value in batch.items()}

    def loss(self, batch: Batch) -> torch.Tensor:
        """Sum of next-token NLL over the labelled tokens (times `weights`), float [batch]."""
        return self._summed(batch, margin=False)[0]

    def measurement(self, batch: Batch) -> torch.Tensor:
        """NLL of the target, float [batch]."""
        return self._summed(batch, margin=False)[0]

    def margin(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of negated log-odds, and the mean of 1 - p over the labelled tokens, [batch]."""
        return self._summed(batch, margin=True)

    def resample(self, batch: Batch, seeds: Sequence[int]) -> Batch:
        """The batch with each labelled token drawn from the model's own prediction there."""
        import torch

        from headwater.tasks.head import draw_labels

        labels = batch["labels"].clone()
        rows, columns = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
        counts = rows.bincount(minlength=len(seeds)).tolist()
        uniform = np.concatenate(
            [
                np.random.Generator(np.random.PCG64(s)).random(n)
                for s, n in zip(seeds, counts, strict=True)
            ]
        )
        with torch.no_grad():
            if self._can_fuse():
                hidden = self._hidden(batch["input_ids"])[rows, columns]
                head = self._network.get_output_embeddings()
                drawn = draw_labels(hidden, head.weight, getattr(head, "bias", None), uniform)
            else:
                logits = self.model(input_ids=batch["input_ids"], use_cache=False).logits
                drawn = draw_labels(logits[rows, columns], None, None, uniform)
        labels[rows, columns + 1] = drawn
        return {**batch, "labels": labels}

    def token_losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """NLL of each labelled token [n], with its row [n] and its position [n] in the batch."""
        loss, _, rows, columns = self._tokens(batch, margin=False)
        return loss, rows, columns + 1

    def _summed(self, batch: Batch, *, margin: bool) -> tuple[torch.Tensor, torch.Tensor]:
        loss, rest, rows, columns = self._tokens(batch, margin=margin)
        size = batch["input_ids"].shape[0]
        if "weights" in batch:
            loss = loss * batch["weights"][rows, columns + 1].to(loss.dtype)
        counts = rows.bincount(minlength=size).clamp(min=1)
        total = loss.new_zeros(size).index_add(0, rows, loss)
        return total, rest.new_zeros(size).index_add(0, rows, rest) / counts

    def _tokens(
        self, batch: Batch, *, margin: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        from headwater.tasks.head import head_loss, logits_loss

        labels = batch["labels"][:, 1:]
        rows, columns = (labels != IGNORED).nonzero(as_tuple=True)
        wanted = labels[rows, columns]
        if self._can_fuse():
            hidden = self._hidden(batch["input_ids"])[rows, columns]
            head = self._network.get_output_embeddings()
            loss, rest = head_loss(
                hidden, head.weight, getattr(head, "bias", None), wanted, margin=margin
            )
        else:
            logits = self.model(input_ids=batch["input_ids"], use_cache=False).logits
            loss, rest = logits_loss(logits[rows, columns], wanted, margin=margin)
        return loss, rest, rows, columns

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        decoder = getattr(self._network, self._network.base_model_prefix)
        return decoder(input_ids=ids, use_cache=False).last_hidden_state

    def _can_fuse(self) -> bool:
        """Whether the fused head may be used now: nobody hooks the head or learns its weight."""
        import torch

        head = getattr(self._network, "get_output_embeddings", lambda: None)()
        if self._fused is False or not isinstance(head, torch.nn.Linear):
            return False
        hooked = head._forward_hooks  # pyright: ignore[reportPrivateUsage]
        if head.weight.requires_grad or hooked or self.model.training:
            return False
        if self._fused is None:
            self._fused = self._probe(head)
        return self._fused

    def _probe(self, head: torch.nn.Linear) -> bool:
        """Whether the logits are the head's own output, and its input the decoder's.

        The first is asked to the last bit: soft-capping leaves small logits nearly as they are.
        """
        import torch

        length = min(8, self.max_length)
        ids = torch.arange(1, length + 1, device=self.device)[None] % self.vocabulary
        passed: list[torch.Tensor] = []

        def note(_: Any, inputs: Any, output: torch.Tensor) -> None:
            passed.append(output)

        handle = head.register_forward_hook(note)
        try:
            with torch.no_grad():
                logits = self.model(input_ids=ids, use_cache=False).logits.float()
                hidden = self._hidden(ids)
        except (AttributeError, TypeError, KeyError):
            return False
        finally:
            handle.remove()
        if len(passed) != 1 or not torch.equal(passed[0].float(), logits):
            return False
        fused = torch.nn.functional.linear(hidden, head.weight, getattr(head, "bias", None)).float()
        error = (logits - fused).norm() / logits.norm().clamp(min=1e-12)
        return bool(error < PROBE_TOLERANCE)

    # -- what it is -----------------------------------------------------------------------

    @property
    def vocabulary(self) -> int:
        """Rows of the input embedding."""
        return self._network.get_input_embeddings().weight.shape[0]

    def head_module(self) -> str | None:
        """Name of the output head's module (`lm_head`)."""
        head = getattr(self._network, "get_output_embeddings", lambda: None)()
        return next((n for n, m in self.model.named_modules() if m is head), None)

    def describe(self) -> dict[str, Any]:
        """Model, tokenizer and every convention that features depend on."""
        return {
            "kind": self.kind,
            "model": model_fingerprint(self.model),
            "dtype": "autocast" if self.autocast is not None else self._dtype(),
            **self.encoder.describe(),
            "max_length": self.max_length,
            "overlap": self.overlap,
            "truncate": self.truncate,
        }

    def _dtype(self) -> str:
        return dtype_name(next(self.model.parameters()).dtype)

    @classmethod
    def load(cls, name: str, **options: Any) -> CausalLM:
        """A model by hub name, local folder, or `smollm2`; see `tasks.load.load_causal_lm`."""
        from headwater.tasks.load import load_causal_lm

        return load_causal_lm(cls, name, **options)


def _inner(model: Any) -> Any:
    """The transformers model itself, behind a PEFT wrapper if there is one."""
    base = getattr(model, "get_base_model", None)
    return unwrap(base()) if base is not None else model


def _window(network: Any, asked: int | None) -> int:
    limit = getattr(getattr(network, "config", None), "max_position_embeddings", None)
    if asked is not None and asked < 2:
        raise InputError("max_length is too small", expected="at least 2 tokens", found=asked)
    if asked is not None and limit is not None and asked > limit:
        raise InputError(
            "max_length exceeds the model's positions", expected=f"at most {limit}", found=asked
        )
    return asked or min(limit or 1024, 1024)
