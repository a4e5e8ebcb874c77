"""DDA (Wu et al. 2024): contrastive error attribution, debiased by the base model and denoised.

    s_t(z) = l(z; theta_t trained on the corrected output) - l(z; theta_t trained on the wrong one)
    b_t(z) = s_t(z) - beta s_0(z)                  debias: 0 is the base model
    DDA(z) = 1/T sum_t b_t(z)                      denoise: the mean over the checkpoints

Positive: z supports the wrong output. To first order, and up to the learning rate, s_t is
<g_z, g_wrong - g_corrected> at theta_t; with `form="gradient"` it is that, taken as a central
difference of losses, which needs no gradient of an example either:

    s_t(z) = (l(z; theta_t + h v) - l(z; theta_t - h v)) / 2h,    v = g_wrong - g_corrected

CEA (Ladhak et al. 2023), the base of it, is s at the last checkpoint. The formulas of DDA are a
reconstruction: its official scripts are empty, and docs/methods/dda.md says what they rest on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headwater.engine.checks import finite, positive
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.index.losses import Losses
from headwater.methods.method import Method, Scores
from headwater.training.further import Further, further, gradient, moved, trained_parameters
from headwater.training.visit import at, checkpoint_of, run_of

if TYPE_CHECKING:
    import torch

    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task
    from headwater.training.further import Pairs
    from headwater.training.recipe import Optimizer
    from headwater.training.run import Checkpoint
    from headwater.training.visit import Place, Run

Form = Literal["pairs", "gradient"]
Contrast = tuple["Pairs", "Pairs"]  # what the error model is trained on, and the ground model
Array = np.ndarray[Any, Any]

NOISE = 1e-5  # of the two gradients' norm; below, their difference is rounding


class DDA(Method):
    """Which examples support a wrong output rather than the corrected one.

    Queries are contrasts: `completion` is the wrong output, `instead_of` the corrected one. Those
    that share one error are pooled by `Query.mean`.

    Args:
        run: whose checkpoints are looked at: a TrainingRun, its folder, or checkpoints; None =
            only the index's model as it is.
        base: the model before this training: a folder of weights, a checkpoint, or a run (its
            last).
        beta: how much of the base model's score is taken away.
        denoise: the mean over all checkpoints; otherwise the last one only.
        debias: take the base model's score away.
        form: "pairs" of further trained models, or "gradient".
        learning_rate, steps, optimizer: of the further training in pairs.
        standardize: divide each model's scores by their standard deviation over the documents
            first, where scales drift over the checkpoints.
        change: sizes h in the gradient form: the step that changes the contrast by this many
            nats, to first order.
        parameters: name patterns of the parameters that are trained; None = all.
        budget: tokens of a batch of examples; None = by the device.

    Raises:
        InputError: when there is nothing to take the base model's score from.
    """

    name, title, additive = "dda", "DDA", True
    unit = "nats (difference of the example's losses; per unit of learning rate as a gradient)"
    needs = "a contrast, checkpoints, the base model, float32 weights"
    costs = "two passes without gradients for each query, checkpoint and base"

    def __init__(
        self,
        run: Run | None = None,
        base: Place | None = None,
        *,
        beta: float = 1.0,
        denoise: bool = True,
        debias: bool = True,
        form: Form = "pairs",
        learning_rate: float = 5e-6,
        steps: int = 3,
        optimizer: Optimizer = "adamw",
        standardize: bool = False,
        change: float = 0.1,
        parameters: Sequence[str] | None = None,
        budget: int | None = None,
    ) -> None:
        if debias and base is None:
            raise InputError(
                f"{self.title} takes the base model's score away, and there is no base model",
                expected="base: a folder with the weights before this training, or a checkpoint",
                do="give base=..., or leave it out with debias=False",
            )
        if form not in ("pairs", "gradient"):
            raise InputError("Unknown form", expected="pairs or gradient", found=form)
        checkpoints: list[Checkpoint | None] = [None] if run is None else [*run_of(run).checkpoints]
        self.places: list[Checkpoint | None] = checkpoints if denoise else checkpoints[-1:]
        self.base = checkpoint_of(base) if debias and base is not None else None
        self.beta, self.denoise = finite("beta", beta), denoise
        self.debias, self.form = debias, form
        self.how = Further(learning_rate, steps, optimizer)
        self.standardize, self.change = standardize, positive("change", change)
        self.parameters, self.budget = parameters, budget

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`. `modules` narrows what is trained."""
        task = index.task
        contrasts = [contrast(task, query, self.title) for query in queries]
        losses = Losses(index, among, self.budget)
        models = len(self.places) + (self.base is not None)
        total = np.zeros((len(contrasts), len(index)))
        work = 2 * len(contrasts) * models * len(losses)
        with Progress(self.name, work, "documents") as progress:
            for place in self.places:
                total += self._scores(task, place, contrasts, losses, modules, progress)
            total /= len(self.places)
            if self.base is not None:
                base = self._scores(task, self.base, contrasts, losses, modules, progress)
                total -= self.beta * base
        yield 0, total.astype(np.float32)

    def _scores(
        self,
        task: Task,
        place: Checkpoint | None,
        contrasts: Sequence[Contrast],
        losses: Losses,
        modules: Sequence[str] | None,
        progress: Progress,
    ) -> Array:
        """s of one model, float64 [queries, documents]."""
        one = self._pair if self.form == "pairs" else self._gradient
        with at(task, place):
            made = [one(task, pairs, losses, modules, progress) for pairs in contrasts]
        scores = np.stack(made)
        if self.standardize and len(losses):
            spread = np.nanstd(scores, axis=1, keepdims=True)
            scores /= np.where(spread > 0, spread, 1.0)
        return scores

    def _pair(
        self,
        task: Task,
        pairs: Contrast,
        losses: Losses,
        modules: Sequence[str] | None,
        progress: Progress,
    ) -> Array:
        """Loss under the ground model less loss under the error model."""
        parameters = trained_parameters(task.model, self.parameters, modules)
        wrong, corrected = pairs
        with further(task, corrected, self.how, parameters):
            ground = losses.now(progress)
        with further(task, wrong, self.how, parameters):
            return ground - losses.now(progress)

    def _gradient(
        self,
        task: Task,
        pairs: Contrast,
        losses: Losses,
        modules: Sequence[str] | None,
        progress: Progress,
    ) -> Array:
        """<g_z, g_wrong - g_corrected> by a central difference along it."""
        parameters = trained_parameters(task.model, self.parameters, modules)
        wrong, corrected = pairs
        (_, v), (_, other) = (gradient(task, side, parameters) for side in (wrong, corrected))
        whole = squared(v) + squared(other)
        for part, away in zip(v, other, strict=True):
            part -= away
        square = squared(v)
        if not square > NOISE**2 * whole:  # what rounding leaves would be blown up
            raise NumericError(
                "The contrast has no gradient",
                expected="a wrong and a corrected output that differ",
                do="look at the query",
            )
        h = self.change / square
        with moved(task, parameters, v, h):
            above = losses.now(progress)
        with moved(task, parameters, v, -h):
            return (above - losses.now(progress)) / (2 * h)

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        own: dict[str, Any] = (
            vars(self.how) if self.form == "pairs" else {"change_of_contrast": self.change}
        )
        return {
            "method": self.name,
            "checkpoints": [None if place is None else str(place.path) for place in self.places],
            "base": None if self.base is None else str(self.base.path),
            "beta": self.beta if self.debias else None,
            "denoise": self.denoise,
            "form": self.form,
            **own,
            "standardize": self.standardize,
            "parameters": None if self.parameters is None else list(self.parameters),
        }


class CEA(DDA):
    """Contrastive error attribution: DDA with neither debias nor denoise.

    Args:
        run: its last checkpoint is looked at; None = the index's model as it is.
        options: of the further training, and the others that DDA takes, but for those of its
            debiasing and denoising.
    """

    name, title = "cea", "CEA"
    needs = "a contrast, float32 weights"
    costs = "two passes without gradients for each query"

    def __init__(
        self,
        run: Run | None = None,
        **options: Any,
    ) -> None:
        taken = [name for name in ("base", "beta", "debias", "denoise") if name in options]
        if taken:
            raise InputError(
                "CEA neither debiases nor denoises",
                expected="the other options of DDA",
                found=", ".join(taken),
                do="take DDA",
            )
        super().__init__(run, debias=False, denoise=False, **options)


def contrast(task: Task, query: Query, title: str = "DDA") -> Contrast:
    """The wrong outputs and the corrected ones of a query, as weighted chunks.

    Raises:
        InputError: when the query, or one that it is a mean of, is no contrast.
    """
    if query.parts:
        share = 1.0 / len(query.parts)
        parts = [contrast(task, part, title) for part in query.parts]
        wrong = [(share * w, chunk) for part, _ in parts for w, chunk in part]
        return wrong, [(share * w, chunk) for _, part in parts for w, chunk in part]
    pairs = task.query_chunks(query)
    wrong = [(w, chunk) for w, chunk in pairs if w > 0]
    corrected = [(-w, chunk) for w, chunk in pairs if w < 0]
    if not wrong or not corrected:
        raise InputError(
            f"{title} needs a wrong output and its correction",
            expected="hw.Query(prompt, wrong output, instead_of=corrected output), or "
            "hw.Query(columns={...}, instead_of={the columns that are corrected})",
            found=query.describe(),
        )
    return wrong, corrected


def squared(parts: Sequence[torch.Tensor]) -> float:
    """Squared norm of tensors taken as one vector."""
    return sum(float((part.double() ** 2).sum()) for part in parts)
