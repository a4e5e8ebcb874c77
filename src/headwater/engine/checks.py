"""Numbers that people give, checked where they are given: one line in place of what breaks later.

Any real number is taken, numpy's too; what is no number at all, or not a finite one, is refused
with the name of the parameter.
"""

from __future__ import annotations

import math
from numbers import Integral, Real

from headwater.engine.errors import InputError


def finite(name: str, value: object, expected: str = "a finite number") -> float:
    """The number; InputError when it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{name} is not usable", expected=expected, found=repr(value))
    return float(value)


def positive(name: str, value: object, expected: str = "a finite number above 0") -> float:
    """The number; InputError when it is not above 0."""
    made = finite(name, value, expected)
    if not made > 0:
        raise InputError(f"{name} is not usable", expected=expected, found=repr(value))
    return made


def at_least_zero(name: str, value: object) -> float:
    """The number; InputError when it is below 0."""
    expected = "a finite number, 0 or more"
    made = finite(name, value, expected)
    if made < 0:
        raise InputError(f"{name} is not usable", expected=expected, found=repr(value))
    return made


def whole(name: str, value: object, least: int = 1) -> int:
    """The whole number; InputError when it is none, or below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(
            f"{name} is not usable",
            expected=f"a whole number, {least} or more",
            found=repr(value),
        )
    return int(value)
