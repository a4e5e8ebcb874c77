"""The learning rate of every step, from those that a trainer logged now and then.

A log has a rate every so many steps (transformers.Trainer: 500), and says nothing of the schedule
between and before them. Here it is taken as straight lines: between two logged steps, and beyond
the first and the last two along the line through them, never below zero. That is exact for
schedules that are straight where nothing was logged; a warm-up that ended before the first entry
leaves no trace in a log, and counts as if there had been none.

transformers logs the rate that the step used. Older versions logged that of the next step, which
shifts everything by one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise


def rates_of_steps(logged: Mapping[int, float], steps: int) -> tuple[float, ...]:
    """The rate of each step from step 1; empty when nothing was logged."""
    known = sorted(logged.items())
    if not known:
        return ()
    if len(known) == 1:  # one entry tells no slope
        return (known[0][1],) * steps
    made: list[float] = []
    lines = list(pairwise(known))
    number = 0
    for step in range(1, steps + 1):
        while number < len(lines) - 1 and step > lines[number][1][0]:
            number += 1
        (a, low), (b, high) = lines[number]
        share = (step - a) / (b - a)
        # At a logged step exactly what was logged, whatever rounding does to the line.
        made.append(logged.get(step, max(0.0, low + share * (high - low))))
    return tuple(made)
