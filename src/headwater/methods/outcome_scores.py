"""Difficulty by what becomes of an example's tokens: EL2N, forgetting, pre-memorization, loss.

    EL2N(z)       = mean over tokens of |p - onehot(y)|_2, at an early checkpoint
    forgetting(z) = mean over tokens of #{k : right at k, wrong at k + 1}
    pre-mem.(z)   = min(max_k accuracy_k [loss_k >= threshold], accuracy_K)
    loss(z)       = mean loss of a token at the last checkpoint

(Paul et al. 2021; Toneva et al. 2019; Kang et al. 2024.)
What was right at no checkpoint was never learnt; it counts K events, more than anything that was
learnt can have, since a count of 0 would call it the easiest of all (Toneva et al. count infinity).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headwater.methods.outcomes import Classifier, Outcome, by_logits, by_loss, follow

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.training.run import Checkpoint

Array = np.ndarray[Any, Any]


class Scored(NamedTuple):
    """values float64 [documents], by_checkpoint float32 [checkpoints, documents], notes."""

    values: Array
    by_checkpoint: Array
    notes: list[str]


class Means:
    """Means over each document's tokens at each checkpoint, float64 [checkpoints, documents]."""

    def __init__(self, checkpoints: int, documents: int) -> None:
        self.sums = np.zeros((checkpoints, documents))
        self.counts = np.zeros((checkpoints, documents))

    def add(self, place: int, owners: Array, values: Array) -> None:
        """Take in a value of each of some tokens."""
        np.add.at(self.sums[place], owners, values)
        np.add.at(self.counts[place], owners, 1)

    def made(self) -> Array:
        """The means; NaN for a document without tokens."""
        with np.errstate(invalid="ignore"):
            return self.sums / self.counts


def el2n(index: Index, checkpoints: Sequence[Checkpoint], classifier: Classifier) -> Scored:
    """Error norm, the mean over the given checkpoints."""
    errors = Means(len(checkpoints), len(index))

    def see(place: int, _: int, outcome: Outcome) -> None:
        errors.add(place, outcome.owners, outcome.error)

    follow(index, by_logits(classifier), checkpoints, see)
    made = errors.made()
    return Scored(made.mean(axis=0), made.astype(np.float32), [])


def loss(index: Index, checkpoints: Sequence[Checkpoint]) -> Scored:
    """Mean loss of a token at the last of the given checkpoints."""
    losses = Means(len(checkpoints), len(index))

    def see(place: int, _: int, outcome: Outcome) -> None:
        losses.add(place, outcome.owners, outcome.loss)

    follow(index, by_loss, checkpoints, see)
    made = losses.made()
    return Scored(made[-1], made.astype(np.float32), [])


def forgetting(
    index: Index, checkpoints: Sequence[Checkpoint], classifier: Classifier, *, exact: bool
) -> Scored:
    """Forgetting events; with `exact` of whole examples (every token right), else of tokens."""
    count, documents = len(checkpoints), len(index)
    accuracy, losses = Means(count, documents), Means(count, documents)
    events = Means(1, documents)
    history: dict[int, _Learnt] = {}

    def see(place: int, number: int, outcome: Outcome) -> None:
        losses.add(place, outcome.owners, outcome.loss)
        owners, right = outcome.owners, outcome.right
        if exact:
            owners, right = _whole(owners, right)
        accuracy.add(place, owners, right)
        state = history.setdefault(number, _Learnt(len(right)))
        np.add.at(events.sums[0], owners, state.forgotten(right))
        if place == count - 1:
            np.add.at(events.sums[0], owners, count * state.never())
            np.add.at(events.counts[0], owners, 1)

    follow(index, by_logits(classifier), checkpoints, see)
    finite = np.isfinite(losses.made()).all(axis=0)
    values = np.where(finite, events.made()[0], np.nan)
    shares = np.where(finite, accuracy.made(), np.nan)
    never = int((shares == 0).all(axis=0).sum())
    notes = [f"{count} checkpoints: what was forgotten and learnt again between two is not seen"]
    if never:
        notes.append(f"{never:,} examples were right in nothing at any checkpoint")
    return Scored(values, shares.astype(np.float32), notes)


def pre_memorization(
    index: Index,
    checkpoints: Sequence[Checkpoint],
    classifier: Classifier,
    *,
    exact: bool,
    threshold: float,
) -> Scored:
    """Best accuracy at a checkpoint that had not memorised the example (loss >= threshold).

    At most the accuracy at the last checkpoint: what is wrong in the end was not learnt.
    """
    count, documents = len(checkpoints), len(index)
    accuracy, losses = Means(count, documents), Means(count, documents)

    def see(place: int, _: int, outcome: Outcome) -> None:
        losses.add(place, outcome.owners, outcome.loss)
        owners, right = outcome.owners, outcome.right
        accuracy.add(place, *(_whole(owners, right) if exact else (owners, right)))

    follow(index, by_logits(classifier), checkpoints, see)
    loss_of, shares = losses.made(), accuracy.made()
    finite = np.isfinite(loss_of).all(axis=0)
    memorised = loss_of < threshold
    values = np.minimum(np.where(memorised, 0.0, shares).max(axis=0), shares[-1])
    always = int((memorised.all(axis=0) & finite).sum())
    notes = [f"memorised: below {threshold:g} nats a token"]
    if always:
        notes.append(
            f"{always:,} examples were memorised at every checkpoint and count 0: earlier "
            "checkpoints, or a lower threshold, would tell more"
        )
    by_checkpoint = np.where(finite, shares, np.nan).astype(np.float32)
    return Scored(np.where(finite, values, np.nan), by_checkpoint, notes)


def _whole(owners: Array, right: Array) -> tuple[Array, Array]:
    """One entry for each document: whether all its tokens are right."""
    documents, places = np.unique(owners, return_inverse=True)
    every = np.ones(len(documents), dtype=bool)
    np.logical_and.at(every, places, right)
    return documents, every


class _Learnt:
    """Which of a piece's tokens were right before, and which ever; a bit each."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.before = self.ever = np.packbits(np.zeros(size, dtype=bool))

    def forgotten(self, right: Array) -> Array:
        """The tokens that were right at the last call, and are no longer, bool [size]."""
        now = np.packbits(right)
        lost = np.unpackbits(self.before & ~now, count=self.size)
        self.before, self.ever = now, self.ever | now
        return lost.astype(bool)

    def never(self) -> Array:
        """The tokens that were right at no call, bool [size]."""
        return ~np.unpackbits(self.ever, count=self.size).astype(bool)
