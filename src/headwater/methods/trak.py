"""TRAK at one checkpoint (Park et al. 2023).

    score(q, z) = (1 - p_z) phi_z^T (Phi^T Phi / n + c I)^-1 phi_q

phi is the projected gradient of the margin f = log(p / (1 - p)); for a language model f is the sum
over the labelled tokens, and 1 - p its mean over them. An ensemble of checkpoints averages both
factors; this is its single-model form, which the paper reports to be clearly weaker.
"""

from __future__ import annotations

from headwater.methods.logra import LoGra


class TRAK(LoGra):
    """TRAK with one checkpoint; needs margin features."""

    name, title, additive = "trak", "TRAK", True
    unit = "change of the log-odds (up to scale)"
    needs = "margin features (output='margin')"
    costs = "a factorisation once, a scan"
    weighted = True
