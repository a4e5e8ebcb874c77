"""EK-FAC influence (Grosse et al. 2023, arXiv 2308.03296): the inverse curvature in full dimension.

    score(q, z) = <(F + damping)^-1 g_q, g_z>,     F by EK-FAC, layer by layer

The queries' gradients are preconditioned once; then every example's gradient meets all of them in
one pass over the corpus; where that is less work, both stay in the eigenbases. KFAC is the same
with eigenvalues that were not measured. `refine` goes on from there to the Fisher itself, by
conjugate gradients.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from headwater.curvature.damping import Damping, RelativeDamping, damping_of
from headwater.curvature.kronecker import uncurved
from headwater.engine.checks import whole
from headwater.engine.errors import NumericError
from headwater.gradients.held import checked_hold
from headwater.index.factors import Factors, Fisher, Fit
from headwater.index.kept_factors import factors_for
from headwater.methods.corpus_pass import CorpusPass, Directions, query_matrices, told
from headwater.methods.own_scores import own_scores
from headwater.methods.refinement import refined
from headwater.methods.turned_pass import turned_scores, turning_is_less

if TYPE_CHECKING:
    import numpy as np

    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.methods.method import Scores
    from headwater.tasks.query import Query

    Array = np.ndarray[Any, Any]

logger = logging.getLogger(__name__)


class EKFAC(CorpusPass):
    """Influence by the eigenvalue-corrected Kronecker curvature.

    Args:
        fisher: "true" (labels drawn from the model, as the paper has it) or "empirical".
        damping: a number in the curvature's unit, or one of `hw.RelativeDamping` (0.1 of each
            layer's mean eigenvalue, the paper's), `hw.ScheduleDamping`.
        examples: documents that the factors are fitted on; None = all.
        parameters: "linear" or a filter of modules, as in `hw.Features`.
        seed: of the sample and the drawn labels.
        refine: steps of conjugate gradients towards (F + damping)^-1 of the Fisher matrix of all
            layers, each a pass over the examples of the fit.
        hold: how the queries' directions are held for the pass over the corpus: "full", "int8" (a
            quarter of the memory), or "rankN" (Grosse et al. take rank 32), so that more queries
            share a pass.
    """

    name, title, unit = "ekfac", "EK-FAC", "change of the loss, times the examples"
    needs = "a model"
    costs = "two passes and eigenvectors for its curvature, once; a pass for each group of queries"
    corrected = True

    def __init__(
        self,
        fisher: Fisher = "true",
        damping: float | Damping = RelativeDamping(),  # noqa: B008 - frozen
        examples: int | None = 100_000,
        parameters: str | ModuleFilter = "linear",
        seed: int = 0,
        refine: int = 0,
        hold: str = "full",
    ) -> None:
        if examples is not None:
            examples = whole("examples", examples)
        self.fit = Fit(fisher, self.corrected, examples, seed)
        self.damping = damping_of(damping)
        self.parameters = parameters
        self.refine, self.hold = whole("refine", refine, 0), checked_hold(hold)
        self.residuals: list[float] = []  # of the queries that were last scored, in their order

    @property
    def copies(self) -> int:
        """Conjugate gradients hold the right side, the solution and four more vectors."""
        return 6 if self.refine else 1

    def factors(self, index: Index, layers: Layers) -> Factors:
        """The curvature of this index's corpus, fitted now or taken from its folder.

        Every layer has one: of no curvature where the sample's losses do not reach it.
        """
        found = factors_for(index, layers, self.fit)
        some = next(iter(found.values())).values
        return {
            name: found[name] if name in found else uncurved(layer, some)
            for name, layer in layers.layers.items()
        }

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Scores of the documents; see `Method.stream`."""
        self.residuals = []
        layers = self.layers(index, modules)
        plain = self.hold == "full" and not self.refine
        if plain and turning_is_less(index, layers, queries, among):
            factors = self.factors(index, layers)
            yield from turned_scores(index, layers, factors, self._added(factors), queries, among)
        else:
            yield from super().stream(index, queries, modules, among)

    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """(F + damping)^-1 g_q."""
        factors = self.factors(index, layers)
        added = self._added(factors)

        def inverse(matrices: Directions) -> Directions:
            return {
                name: factors[name].apply(each, lambda v, a=added[name]: 1 / (v + a))
                for name, each in matrices.items()
            }

        made = {n: one for n, one in query_matrices(layers, queries).items() if n in added}
        if not self.refine:
            return inverse(made)
        found, residuals = refined(index, layers, self.fit, added, made, inverse, self.refine)
        self.residuals += residuals
        logger.info("refined to residuals of at most %.2g", max(residuals))
        return found

    def _added(self, factors: Factors) -> dict[str, float]:
        """The damping of each layer; of none where neither that nor curvature is above 0.

        No example of the sample has a gradient there (as in the first of an adapter's two matrices
        before it is trained), so such a layer has nothing to say, as in `hw.LoGra`.

        Raises:
            NumericError: when without damping there is no inverse.
        """
        made: dict[str, float] = {}
        for name, one in factors.items():
            added = self.damping.of(float(one.values.double().mean()))
            if added > 0 or float(one.values.min()) > 0:
                made[name] = added
            elif bool(one.values.any()):
                raise NumericError(
                    f"The curvature of {name} has directions of zero curvature",
                    expected="damping above 0",
                    found=f"damping {added}",
                )
        if not made:
            raise NumericError(
                "No example of the sample has a gradient", expected="one in some attributed layer"
            )
        return made

    def self_influence(self, index: Index, modules: Sequence[str] | None = None) -> Array:
        """g_z^T (F + damping)^-1 g_z of each document, float32 [documents], in one pass.

        By EK-FAC's own inverse, not the refined one.
        """
        layers = self.layers(index, modules)
        factors = self.factors(index, layers)
        added = self._added(factors)
        weights = {n: 1 / (factors[n].values + more) for n, more in added.items()}
        return own_scores(index, layers, factors, weights)

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        return {
            "method": self.name,
            **{k: v for k, v in asdict(self.fit).items() if k != "corrected"},
            "damping": repr(self.damping),
            "parameters": told(self.parameters),
            **({"refine": self.refine} if self.refine else {}),
            **({"hold": self.hold} if self.hold != "full" else {}),
        }


class KFAC(EKFAC):
    """The same with the eigenvalues of the Kronecker factors themselves; see `EKFAC`."""

    name, title = "kfac", "K-FAC"
    corrected = False
