"""Errors that speak in one line: what was wrong, what was expected, what was found, what to do.

Every failure that a person can cause or meet is a `HeadwaterError`; the command line prints its
text and exits with its `exit_code`. Anything else that escapes is a defect of ours.
"""

from __future__ import annotations


class HeadwaterError(Exception):
    """A failure explained in one line.

    Args:
        wrong: what was wrong, naming the thing (file, line, example, field).
        expected: what would have been right.
        found: what was there instead.
        do: what the person can do about it.
    """

    exit_code = 1

    def __init__(
        self,
        wrong: str,
        *,
        expected: object = None,
        found: object = None,
        do: str | None = None,
    ) -> None:
        parts = [wrong.rstrip(".")]
        if expected is not None:
            parts.append(f"expected {expected}")
        if found is not None:
            parts.append(f"found {found}")
        text = "; ".join(parts)
        if do is not None:
            text = f"{text}. {do[0].upper()}{do[1:]}"
        super().__init__(text)
        self.wrong = wrong
        self.expected = expected
        self.found = found
        self.do = do


class InputError(HeadwaterError):
    """The input (a file, a column, a query, a parameter) is not usable as given."""

    exit_code = 2


class MismatchError(HeadwaterError):
    """Two things that must agree do not: the model of an index and the one given, for example."""

    exit_code = 3


class DamageError(HeadwaterError):
    """A stored file is not what its manifest says."""

    exit_code = 4


class BusyError(HeadwaterError):
    """Another process is writing the same thing."""

    exit_code = 5


class NumericError(HeadwaterError):
    """A loss or gradient is not finite."""

    exit_code = 6


class ResourceError(HeadwaterError):
    """Memory or disk ran out; nothing that was finished is lost."""

    exit_code = 7
