"""l-RelatIF: LoGra's influence, relative to how much an example influences anything.

    score(q, z) = u_z^T (R + c I)^-1 u_q / sqrt(u_z^T (R + c I)^-1 u_z)

The root of the self-influence keeps examples that influence everything from crowding out the rest
(Barshan et al. 2020, their loss form, in LoGra's projected space).
"""

from __future__ import annotations

from headwater.methods.logra import LoGra
from headwater.methods.view import Norm


class LRelatIF(LoGra):
    """LoGra over the root of the example's self-influence."""

    name, title, additive = "relatif", "l-RelatIF", False
    unit = "influence per root of self-influence"
    norm: Norm = "examples"
