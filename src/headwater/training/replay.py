"""The training loop again, as a function that can be differentiated: exact metagradients.

A training is theta_T = F(theta_0, w), where w weighs the examples' losses (1 in the loop, whose
denominator it leaves alone). Given d measurement / d theta_T, the chain rule goes back through all
T steps to d measurement / d w. Only every sqrt(T)-th state is kept on the way forward; on the way
back each segment is run again from its first state, so 2 sqrt(T) states are in memory at most, and
several measurements share all of it but the vector products.

Of a step only its gradient needs autograd twice: with mu the derivative by the step's gradient
g = sum_i w_i grad l_i / N, the one product <g, mu> gives both H mu = d<g, mu> / d theta and
d<g, mu> / d w_i. The optimizer's own part is written out in `training/update.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from headwater.corpus.batches import batches_by_length
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.tasks.task import evaluating
from headwater.training.loop import batches, labelled
from headwater.training.update import Active, Clip, Flat, State, make_update

if TYPE_CHECKING:
    from headwater.tasks.task import Chunk, Task
    from headwater.training.recipe import Recipe

BUDGET = 1024  # tokens of a batch of measured chunks
TWICE = "The model or its loss cannot be differentiated twice"
SECOND = "operations with a second derivative"
SAME = 1e-5  # relative; losses in training and in evaluation mode, of a model without dropout


class Replay:
    """A training by `training.loop.train` that can be run again and differentiated.

    Args:
        task: the model, with its initial weights, and its loss. It is not changed.
        chunks: what it is trained on, all chunks of the corpus in its order.
        recipe: how; without dropout.
        eps_root: added inside AdamW's root. 0 is the loop; another value is another training.
        segment: steps between kept states; None = sqrt(T). As many as there are steps keeps every
            state, and no step is run twice.

    Raises InputError for a model that behaves otherwise in training mode while the recipe asks for
    it, and for trained parameters that are not of one dtype, float32 or float64.
    """

    def __init__(
        self,
        task: Task,
        chunks: Sequence[Chunk],
        recipe: Recipe,
        *,
        eps_root: float = 0.0,
        segment: int | None = None,
    ) -> None:
        self.task, self.chunks, self.recipe = task, chunks, recipe
        self.flat = Flat(task.model)
        self.update = make_update(recipe, self.flat, eps_root)
        self.steps = recipe.total_steps(len(chunks))
        self.segment = segment or math.ceil(math.sqrt(self.steps))
        self._batches = list(batches(len(chunks), recipe, self.steps))
        self._stand = _Stand(task.model)
        trained = set(self.flat.names)
        self._frozen = {
            name: p.detach() for name, p in task.model.named_parameters() if name not in trained
        }
        self._starts: list[State] = []
        self._inside: list[State] = []
        if recipe.dropout:
            self._refuse_dropout()

    @property
    def kept(self) -> int:
        """States in memory at most: first ones of the segments, and all of one segment."""
        whole, rest = divmod(self.steps, self.segment)
        return max(whole + self.segment - 1 if whole else 0, whole + rest)

    def memory(self, measurements: int = 1) -> int:
        """Bytes of the kept states and of the derivatives by one state, activations aside."""
        width = 1 + self.update.slots
        vectors = self.kept * width + measurements * (2 * width + 2)
        bits = torch.finfo(next(self.task.model.parameters()).dtype).bits
        return vectors * self.flat.size * bits // 8

    # -- forward --------------------------------------------------------------------------

    def run(self) -> torch.Tensor:
        """Train from the model's present weights; the final ones as one vector [size]."""
        state = self.update.start(self.flat.gather(self.task.model))
        self._starts, self._inside = [], []
        last = (self.steps - 1) // self.segment * self.segment
        with evaluating(self.task.model), Progress("replaying", self.steps, "steps") as progress:
            for step in range(self.steps):
                if step % self.segment == 0:
                    self._starts.append(state)
                if step >= last:
                    self._inside.append(state)
                state = self._forward(state, step)
                progress.advance(1)
        return state.theta

    def _forward(self, state: State, step: int) -> State:
        rows = self._batches[step]
        batch = self.task.collate([self.chunks[row] for row in rows])
        leaves = self._leaves(state.theta)
        with torch.enable_grad():
            # As the loop has it, a frozen head and the kernels of attention included.
            losses = self._stand.run(self.flat.names, leaves, partial(self.task.loss, batch))
            mean = losses.sum() / labelled(batch, len(rows))
            self._check("loss", mean, step)
            parts = torch.autograd.grad(mean, leaves, allow_unused=True)
        g, active, clip = self._joined(parts, step)
        return self.update.forward(state, g * clip.factor, active, self._rate(step))

    def _joined(
        self, parts: Sequence[torch.Tensor | None], step: int
    ) -> tuple[torch.Tensor, Active, Clip]:
        """The gradient as one vector, which parameters have one, and how it is clipped."""
        there = [part.detach() for part in parts if part is not None]
        if not there:
            raise InputError("The loss does not depend on the trained parameters")
        norm = torch.nn.utils.get_total_norm(there)
        self._check("gradient", norm, step)
        g = self.flat.join(parts, there[0])
        active = tuple(part is not None for part in parts)
        return g, active, Clip(float(norm), self.recipe.grad_clip)

    def _rate(self, step: int) -> float:
        return self.recipe.learning_rate_at(step + 1, self.steps)

    def _leaves(self, theta: torch.Tensor) -> list[torch.Tensor]:
        # Copies: memory aligned as the model's own, so that kernels round alike.
        return [part.clone().requires_grad_() for part in self.flat.parts(theta)]

    def _check(self, what: str, value: torch.Tensor, step: int) -> None:
        if not math.isfinite(float(value.detach())):
            raise NumericError(
                f"The {what} is not finite at step {step + 1} of the replayed training",
                expected="a training that ends with finite weights",
                do="lower the learning rate",
            )

    # -- measurements ---------------------------------------------------------------------

    def measured(
        self, theta: torch.Tensor, parts: Sequence[tuple[float, Chunk]]
    ) -> tuple[float, torch.Tensor]:
        """A weighted sum of measurements at these weights, and its gradient [size]."""
        value, total = 0.0, torch.zeros_like(theta)
        leaves = self._leaves(theta)
        for rows in batches_by_length([chunk.length for _, chunk in parts], BUDGET):
            batch = self.task.collate([parts[row][1] for row in rows])
            with self.task.running(), torch.enable_grad():
                found = self._stand.run(
                    self.flat.names, leaves, lambda b=batch: self.task.measurement(b)
                )
                weighted = (found * found.new_tensor([parts[row][0] for row in rows])).sum()
                if not weighted.requires_grad:
                    raise InputError("The measurement does not depend on the trained parameters")
                total += self.flat.join(
                    torch.autograd.grad(weighted, leaves, allow_unused=True), theta
                )
            value += float(weighted.detach())
        return value, total

    # -- backward -------------------------------------------------------------------------

    def pull(self, by_theta: torch.Tensor) -> torch.Tensor:
        """Derivatives by the weight of each chunk, float64 [measurements, chunks].

        Args:
            by_theta: derivatives of the measurements by the final weights, [measurements, size].

        The kept states are used up: a second call runs forward again.
        """
        if not self._starts:
            self.run()
        zeros = tuple(torch.zeros_like(by_theta) for _ in range(self.update.slots))
        adjoint = (by_theta, *zeros)
        by_weight = torch.zeros(
            (len(by_theta), len(self.chunks)), dtype=torch.float64, device=by_theta.device
        )
        with (
            evaluating(self.task.model),
            _twice(),
            Progress("metagradients", self.steps, "steps") as progress,
        ):
            while self._starts:
                first = len(self._starts[:-1]) * self.segment
                start, states, self._inside = self._starts.pop(), self._inside, []
                states = states or self._again(start, first)
                while states:
                    step = first + len(states) - 1
                    adjoint = self._backward(states.pop(), step, adjoint, by_weight)
                    progress.advance(1)
        if not torch.isfinite(by_weight).all():
            raise NumericError(
                "The derivatives through the training are not finite",
                expected="a training that small changes change little",
                do="lower the learning rate, clip gradients, or set eps_root",
            )
        return by_weight

    def _again(self, start: State, first: int) -> list[State]:
        """The states before each step of a segment."""
        states = [start]
        for step in range(first, first + self.segment - 1):
            states.append(self._forward(states[-1], step))
        return states

    def _backward(
        self,
        state: State,
        step: int,
        adjoint: tuple[torch.Tensor, ...],
        by_weight: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Derivatives by the state before a step; its examples' go into `by_weight`."""
        rows = self._batches[step]
        leaves, weights, parts = self._graph(state.theta, rows)
        g, active, clip = self._joined(parts, step)
        before, by_clipped = self.update.backward(
            state, g * clip.factor, active, self._rate(step), adjoint
        )
        by_g = clip.backward(g, by_clipped)
        outputs = [(i, p) for i, p in enumerate(parts) if p is not None and p.requires_grad]
        by_theta = before[0].clone()
        for number, direction in enumerate(by_g):
            pieces = self.flat.parts(direction)
            found = torch.autograd.grad(
                [part for _, part in outputs],
                [*leaves, weights],
                [pieces[i] for i, _ in outputs],
                retain_graph=number + 1 < len(by_g),
                allow_unused=True,
            )
            by_theta[number] += self.flat.join(found[:-1], direction)
            by_rows = cast("torch.Tensor | None", found[-1])
            if by_rows is None:  # yet the gradient of a weighted sum depends on its weights
                raise InputError(TWICE, expected=SECOND, found="a gradient without a graph")
            by_weight[number, rows] += by_rows.double()
        return (by_theta, *before[1:])

    def _graph(
        self, theta: torch.Tensor, rows: Sequence[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor, tuple[torch.Tensor | None, ...]]:
        """Parameters, weights of the examples, and the step's gradient as a function of both."""
        batch = self.task.collate([self.chunks[row] for row in rows])
        leaves = self._leaves(theta)
        # Frozen parameters pass for trained ones: a fused head, which they would allow, can be
        # differentiated only once. No gradient is ever computed for them.
        frozen = [p.detach().requires_grad_(p.is_floating_point()) for p in self._frozen.values()]
        names = [*self.flat.names, *self._frozen]
        # Fused attention has no second derivative; the plain one has.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            losses = self._stand.run(names, [*leaves, *frozen], partial(self.task.loss, batch))
            weights = torch.ones_like(losses, requires_grad=True)
            mean = (weights * losses).sum() / labelled(batch, len(rows))
            parts = torch.autograd.grad(mean, leaves, create_graph=True, allow_unused=True)
        return leaves, weights, parts

    # -- what cannot be replayed ----------------------------------------------------------

    def _refuse_dropout(self) -> None:
        """Raise InputError when the model's losses are not the same in training mode."""
        batch = self.task.collate([self.chunks[row] for row in self._batches[0]])
        held = {name: b.clone() for name, b in self.task.model.named_buffers()}
        modes = [(module, module.training) for module in self.task.model.modules()]
        devices = [self.task.device.index or 0] if self.task.device.type == "cuda" else []
        found: list[torch.Tensor] = []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            for mode in (False, True):
                torch.manual_seed(0)
                try:
                    self.task.model.train(mode)
                    found.append(
                        self._stand.run(
                            list(held), list(held.values()), partial(self.task.loss, batch)
                        )
                    )
                finally:
                    for module, before in modes:
                        module.training = before
        if not torch.allclose(*found, rtol=SAME, atol=0):
            raise InputError(
                "The model has dropout, or another part that training mode changes",
                expected="a training that its recipe decides to the last bit",
                do="train with Recipe(dropout=False)",
            )


class _Stand(torch.nn.Module):
    """Holds the model while functions of the task run with other parameters in it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What the function gives."""
        return function()

    def run(
        self,
        names: Sequence[str],
        values: Sequence[torch.Tensor],
        function: Callable[[], torch.Tensor],
    ) -> torch.Tensor:
        """What the function gives while the model has these values by these names."""
        named: dict[str, Any] = {f"model.{n}": v for n, v in zip(names, values, strict=True)}
        return functional_call(self, named, (function,))


@contextmanager
def _twice() -> Generator[None]:
    """Say plainly that something has no second derivative."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        if "not implemented" not in text and "differentiate twice" not in text:
            raise
        raise InputError(
            TWICE,
            expected=SECOND,
            found=text.splitlines()[0],
        ) from error
