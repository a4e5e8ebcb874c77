"""EK-FAC influence (Grosse et al. 2023, arXiv 2308.03296): the inverse curvature in full dimension.

    score(q, z) = <(F + damping)^-1 g_q, g_z>,     F by EK-FAC, layer by layer

The queries' gradients are preconditioned once; then every example's gradient meets all of them in
one pass over the corpus. KFAC is the same with eigenvalues that were not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from headwater.curvature.damping import Damping, RelativeDamping, damping_of
from headwater.engine.errors import NumericError
from headwater.index.factors import Factors, Fisher, Fit
from headwater.index.kept_factors import factors_for
from headwater.methods.corpus_pass import CorpusPass, Directions, query_matrices

if TYPE_CHECKING:
    from headwater.gradients.features import ModuleFilter
    from headwater.gradients.matrices import Layers
    from headwater.index.index import Index
    from headwater.tasks.query import Query


class EKFAC(CorpusPass):
    """Influence by the eigenvalue-corrected Kronecker curvature.

    Args:
        fisher: "true" (labels drawn from the model, as the paper has it) or "empirical".
        damping: a number in the curvature's unit, or one of `hw.RelativeDamping` (0.1 of each
            layer's mean eigenvalue, the paper's), `hw.ScheduleDamping`.
        examples: documents that the factors are fitted on; None = all.
        parameters: "linear" or a filter of modules, as in `hw.Features`.
        seed: of the sample and the drawn labels.
    """

    name, title, unit = "ekfac", "EK-FAC", "change of the loss, times the examples"
    needs = "a model; two passes for its curvature, and one for each group of queries"
    corrected = True

    def __init__(
        self,
        fisher: Fisher = "true",
        damping: float | Damping = RelativeDamping(),  # noqa: B008 - frozen
        examples: int | None = 100_000,
        parameters: str | ModuleFilter = "linear",
        seed: int = 0,
    ) -> None:
        self.fit = Fit(fisher, self.corrected, examples, seed)
        self.damping = damping_of(damping)
        self.parameters = parameters

    def factors(self, index: Index, layers: Layers) -> Factors:
        """The curvature of this index's corpus, fitted now or taken from its folder."""
        return factors_for(index, layers, self.fit)

    def directions(self, index: Index, layers: Layers, queries: Sequence[Query]) -> Directions:
        """(F + damping)^-1 g_q."""
        factors = self.factors(index, layers)
        made = query_matrices(layers, queries)
        for name, matrices in made.items():
            values = factors[name].values
            added = self.damping.of(float(values.double().mean()))
            if added <= 0 and float(values.min()) <= 0:
                raise NumericError(
                    f"The curvature of {name} has directions of zero curvature",
                    expected="damping above 0",
                    found=f"damping {added}",
                )
            made[name] = factors[name].apply(matrices, lambda v, a=added: 1 / (v + a))
        return made

    def describe(self) -> dict[str, Any]:
        """Name and parameters."""
        parameters = self.parameters if isinstance(self.parameters, str) else "filter"
        return {
            "method": self.name,
            **{k: v for k, v in asdict(self.fit).items() if k != "corrected"},
            "damping": repr(self.damping),
            "parameters": parameters,
        }


class KFAC(EKFAC):
    """The same with the eigenvalues of the Kronecker factors themselves; see `EKFAC`."""

    name, title = "kfac", "K-FAC"
    corrected = False
