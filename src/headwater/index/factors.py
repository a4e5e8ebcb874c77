"""Fitting Kronecker factors on an index's corpus: two passes, and the eigenbases between them.

The first pass sums covariances, the second measures the eigenvalues in the basis found. With
several visits (checkpoints of a training) both are means over them: one basis for all, as SOURCE
wants it. An example here is a chunk, which is what a training took its gradients of. Each pass is
cut into parts (see `index/parts.py`), so that a fit goes on where it was stopped, and processes
that fit the same factors share the work.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from headwater.corpus.batches import batches_by_length
from headwater.corpus.halving import whole
from headwater.curvature.kronecker import CovarianceSink, LayerCurvature, Side, decompose
from headwater.curvature.sides import WIDEST, block_slices, lower_triangle, panel_rows
from headwater.curvature.turned import Eigenbases, EigenvalueSink
from headwater.engine.errors import InputError, NumericError
from headwater.engine.files import locked, make_folder
from headwater.engine.memory import MUCH, give_back
from headwater.engine.progress import Progress
from headwater.gradients.matrices import wide
from headwater.index.mapped import map_tensors
from headwater.index.parts import Parts, Sums, is_written, write_tensors
from headwater.index.passes import budget_of, sampled_chunks

if TYPE_CHECKING:
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.index.selection import Mask

Fisher = Literal["true", "empirical"]
Visit = Callable[[], AbstractContextManager[Any]]

BASES, VALUES = "bases.safetensors", "values.safetensors"  # what a fit leaves behind
PARTS = 8  # of a visit's pass; each is a file of the model's size until the pass is done
LEAST = 64  # documents of a part: fewer are not worth its file


@dataclass(frozen=True)
class Fit:
    """How factors are fitted.

    Args:
        fisher: "true" draws labels from the model, "empirical" takes those of the corpus.
        corrected: EK-FAC's measured eigenvalues; False keeps K-FAC's.
        examples: documents of the sample, chosen by a hash of their ids; None = all.
        seed: of the sample and of the labels.
        widest: columns of a side that are decomposed together; wider sides go by diagonal blocks.
    """

    fisher: Fisher = "true"
    corrected: bool = True
    examples: int | None = 100_000
    seed: int = 0
    widest: int = WIDEST

    def __post_init__(self) -> None:
        """Check every field."""
        if self.fisher not in ("true", "empirical"):
            raise InputError("Unknown Fisher", expected="true or empirical", found=self.fisher)
        if self.examples is not None and self.examples < 1:
            raise InputError("examples is too small", expected="at least 1", found=self.examples)
        if self.widest < 1:
            raise InputError("widest is too small", expected="at least 1", found=self.widest)


Factors = dict[str, LayerCurvature]


def fit_factors(
    index: Index,
    layers: Layers,
    fit: Fit,
    visits: Sequence[Visit] = (nullcontext,),
    folder: Path | None = None,
    among: Mask | None = None,
) -> Factors:
    """Factors of every layer, by weight name.

    Args:
        index: whose corpus. layers: of its task. fit: how.
        visits: each puts the model into a state (a checkpoint) and back again.
        folder: what is finished is written there (in the end, `BASES` and `VALUES`), and what is
            there already is taken over; it must be of this fit alone. None = a temporary one.
        among: the documents that are fitted on, bool [documents]; None = all.

    Raises:
        NumericError: when a covariance or an eigenvalue is not finite; names the layer.
    """
    with ExitStack() as stack:
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix=".fit-", dir=index.path)
            folder = Path(stack.enter_context(made))
        make_folder(folder)
        fitting = _Fitting(index, layers, fit, visits, folder, among)
        fitting.bases()
        fitting.values()
        return read_factors(folder, layers.task.device)


def sample(index: Index, examples: int | None, seed: int, among: Mask | None = None) -> list[int]:
    """Positions of so many documents (None = all), chosen by a hash of their ids, in order.

    Args:
        among: those that are chosen from, bool [documents]; None = all.
    """
    positions = [p for p in range(len(index)) if among is None or among[p]]
    if examples is None or examples >= len(positions):
        return positions

    def key(position: int) -> bytes:
        return hashlib.sha256(f"{seed}:{index.ids[position]}".encode()).digest()

    return sorted(sorted(positions, key=key)[:examples])


def read_factors(folder: Path, device: torch.device) -> Factors:
    """The factors that a fit left in this folder, mapped into memory.

    Raises:
        KeyError: when the files are not whole.
    """
    bases, _ = _read_bases(folder, device)
    held = map_tensors(folder / VALUES)
    return {
        name: LayerCurvature(out, bases.inn[name], held[f"values.{name}"].to(device))
        for name, out in bases.out.items()
    }


def _read_bases(folder: Path, device: torch.device) -> tuple[Eigenbases, Sums]:
    """The eigenvectors on the device, and all tensors of the file."""
    held = map_tensors(folder / BASES)
    inputs: dict[str, list[torch.Tensor]] = {}
    made = Eigenbases({}, {})
    for name, leader in _leaders(held).items():
        if leader not in inputs:
            inputs[leader] = _numbered(held, f"inn.{leader}", device)
        made.inn[name] = inputs[leader]
        made.out[name] = _numbered(held, f"out.{name}", device)
    return made, held


def _numbered(held: Sums, prefix: str, device: torch.device) -> list[torch.Tensor]:
    keys = (f"{prefix}.{number}" for number in itertools.count())
    return [held[key].to(device) for key in itertools.takewhile(held.__contains__, keys)]


def _leaders(held: Sums) -> dict[str, str]:
    """By layer, the layer under whose name its input is."""
    prefix = "input_of."
    return {
        key.removeprefix(prefix): bytes(value.tolist()).decode()
        for key, value in held.items()
        if key.startswith(prefix)
    }


class _Fitting:
    """The steps of a fit; each is left out where its result is there."""

    def __init__(
        self,
        index: Index,
        layers: Layers,
        fit: Fit,
        visits: Sequence[Visit],
        folder: Path,
        among: Mask | None = None,
    ) -> None:
        self.index, self.layers, self.fit, self.visits = index, layers, fit, visits
        self.folder = folder
        self.budget = budget_of(index)
        chosen = sample(index, fit.examples, fit.seed, among)
        count = min(PARTS, max(1, len(chosen) // LEAST))
        edges = [len(chosen) * i // count for i in range(count + 1)]
        self.parts = [chosen[a:b] for a, b in itertools.pairwise(edges)]

    def bases(self) -> None:
        """Sum the covariances and decompose them into `BASES`."""
        path = self.folder / BASES
        if is_written(path):
            return
        make = partial(CovarianceSink, self.layers.layers, self.fit.widest)
        parts = self._pass("covariances", make, path)
        self._once(path, parts, partial(self._decomposed, parts))

    def values(self) -> None:
        """Measure the eigenvalues, or take K-FAC's own, into `VALUES`."""
        path = self.folder / VALUES
        if is_written(path):
            return
        bases, held = _read_bases(self.folder, self.layers.task.device)
        if not self.fit.corrected:
            parts = Parts(self.folder / "none", [], lambda: False)
            self._once(path, parts, partial(_outer, bases, held))
            return
        make = partial(EigenvalueSink, self.layers.layers, bases)
        parts = self._pass("eigenvalues", make, path)
        self._once(path, parts, partial(_means, parts, int(held["examples"]), bases))

    def _once(self, path: Path, parts: Parts, make: Callable[[], Sums]) -> None:
        """Write `path` unless another process has, and remove the parts that it is made of."""
        with locked(path.with_name(f".{path.stem}.lock"), path.name, wait=True):
            if not is_written(path):
                write_tensors(path, make())
                give_back(MUCH)
            parts.remove()

    def _pass(
        self, label: str, make: Callable[[], CovarianceSink | EigenvalueSink], result: Path
    ) -> Parts:
        """Every part of every visit that is missing; those that others are at, in the end."""
        names = {
            f"{visit:03d}-{part:02d}": (visit, positions)
            for visit in range(len(self.visits))
            for part, positions in enumerate(self.parts)
        }
        parts = Parts(self.folder / label, list(names), result.with_suffix(".json").exists)
        missing = parts.missing()
        total = sum(len(positions) for _, positions in names.values())
        left = sum(len(names[name][1]) for name in missing)
        if not left:
            return parts
        with Progress(label, total, "examples") as progress:
            progress.advance(total - left)
            for wait in (False, True):
                for number, visit in enumerate(self.visits):
                    mine = [name for name in parts.missing() if names[name][0] == number]
                    with visit() if mine else nullcontext():
                        for name in mine:
                            sums = partial(self._sums, label, make, names[name][1], progress)
                            parts.compute(name, sums, wait=wait)
            progress.advance(total - progress.done)  # what others made
        return parts

    def _sums(
        self,
        label: str,
        make: Callable[[], CovarianceSink | EigenvalueSink],
        positions: Sequence[int],
        progress: Progress,
    ) -> Sums:
        """A part's sums; begun again where memory runs out."""
        before = progress.done

        def attempt(budget: int) -> Sums:
            self.budget = budget  # what memory allowed, for the parts to come
            if progress.done > before:
                progress.advance(before - progress.done)
            sink = make()
            self._run(sink, positions, progress)
            return sink.tensors()

        return whole(self.budget, attempt, label)

    def _run(
        self, sink: CovarianceSink | EigenvalueSink, positions: Sequence[int], progress: Progress
    ) -> None:
        """One pass over these documents into the sink."""
        seed = self.fit.seed if self.fit.fisher == "true" else None
        for some, flat, seeds in sampled_chunks(self.index, positions, seed):
            for part in batches_by_length([chunk.length for chunk in flat], self.budget):
                batch = [flat[i] for i in part]
                sink.lengths = _lengths([chunk.length for chunk in batch])
                drawn = None if seeds is None else [seeds[i] for i in part]
                self.layers.run(sink, batch, seeds=drawn)
            progress.advance(len(some))

    def _decomposed(self, parts: Parts) -> Sums:
        """Eigenvectors of all sides, and what K-FAC makes of their eigenvalues.

        Its own are those of (S / examples) kron (A / tokens): the mean over examples of a sum over
        tokens, were tokens and sides independent.
        """
        found = parts.firsts()
        (examples,) = parts.total("examples")
        leaders = _leaders(found)
        made: Sums = {"examples": examples}
        sides: dict[str, Side] = {}
        for name, leader in leaders.items():
            if f"out.{name}.0" not in found:  # its output was of no use to the loss
                continue
            made[f"input_of.{name}"] = found[f"input_of.{name}"].clone()
            layer = self.layers.layers[name]
            for key, said, width in (
                (f"out.{name}", f"the output gradient of {name}", layer.rows),
                (f"inn.{leader}", f"the input of {leader}", layer.columns),
            ):
                dtype = wide(found[f"{key}.0"].dtype)
                sides[key] = self._side(parts, key, said, width, dtype)
        del found
        for key, (vectors, values) in decompose(sides).items():
            kind, name = key.split(".", 1)
            (count,) = [examples] if kind == "out" else parts.total(f"count.inn.{name}")
            made[f"values.{key}"] = values / count.clamp(min=1)
            made |= {f"{key}.{number}": u for number, u in enumerate(vectors)}
        return made

    def _side(self, parts: Parts, key: str, said: str, width: int, dtype: torch.dtype) -> Side:
        """A side whose blocks are added up when they are asked for."""
        blocks = [one.stop - one.start for one in block_slices(width, self.fit.widest)]
        device = self.layers.task.device

        def added() -> Iterator[torch.Tensor]:
            numbers = itertools.count()
            for block in blocks:
                names = [f"{key}.{next(numbers)}" for _ in panel_rows(block)]
                yield lower_triangle(parts.total(*names)).to(device)

        return Side(said, max(blocks), added, dtype)


def _outer(bases: Eigenbases, held: Sums) -> Sums:
    """K-FAC's eigenvalues of every layer."""
    leaders = _leaders(held)
    return {
        f"values.{name}": torch.outer(
            held[f"values.out.{name}"], held[f"values.inn.{leaders[name]}"]
        ).to(out[0].dtype)
        for name, out in bases.out.items()
    }


def _means(parts: Parts, examples: int, bases: Eigenbases) -> Sums:
    """EK-FAC's eigenvalues of every layer."""
    made: Sums = {}
    for name, out in bases.out.items():
        (total,) = parts.total(f"values.{name}")
        value = (total / examples).to(out[0].dtype)
        if not bool(torch.isfinite(value).all()):
            raise NumericError(f"The eigenvalues of {name} are not finite")
        made[f"values.{name}"] = value
    return made


def _lengths(lengths: Sequence[int]) -> torch.Tensor | None:
    """Lengths that tell padding; examples that are no sequences have none."""
    return None if max(lengths) == 1 else torch.as_tensor(list(lengths))
