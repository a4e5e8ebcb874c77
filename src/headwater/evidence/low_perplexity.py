"""Was it memorised? Words of which the model was sure, looked up in the corpus.

The pipeline of Wuhrmann et al. (ACL-SRW 2025, arXiv 2507.01844): outputs, windows of tokens that
are all probable, their counts in the corpus, their perplexity without context; and beside the match
rate the control that the paper lacks (`evidence/chance.py`). Each step is a function of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.evidence.chance import (
    DRAWS,
    KINDS,
    TOLERANCE,
    Pool,
    Unigrams,
    other_windows,
    replaced_windows,
    shuffled_windows,
)
from headwater.evidence.lookup import Lookup, Phrase
from headwater.evidence.memorization import (
    CATEGORIES,
    Memorization,
    Read,
    Window,
    category,
    summarise,
)
from headwater.evidence.probable_windows import (
    LENGTH,
    STRIDE,
    THRESHOLD,
    probable_runs,
    probable_windows,
    prompt_overlap,
    prompt_words,
)
from headwater.evidence.token_probabilities import standalone_perplexities
from headwater.tasks.generate import text_between

if TYPE_CHECKING:
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.generate import Generation

NO_DOMAIN = "(none)"


@dataclass(frozen=True)
class Settings:
    """`length` tokens of p >= `threshold`, every `stride` tokens; the seed of all draws."""

    length: int = LENGTH
    stride: int = STRIDE
    threshold: float = THRESHOLD
    seed: int = 0


def memorization(
    task: CausalLM,
    outputs: Sequence[Generation],
    lookup: Lookup,
    settings: Settings = Settings(),
    domains: Sequence[str | None] = (),
) -> Memorization:
    """Windows of probable tokens, how often the corpus holds them, and what chance would give.

    Args:
        task: the model, for the perplexity of windows alone.
        outputs: with the p of each token: of `tasks.generate.generate`, or of
            `evidence.token_probabilities.given_outputs`.
        lookup: the corpus. settings: what a window is.
        domains: of each prompt, by its `index`; empty = one domain.

    Raises:
        InputError: when there is no output, or there can be no such window.
    """
    if not outputs:
        raise InputError("There is no output to look at", expected="at least one")
    length = settings.length
    ordered = sorted(outputs, key=lambda one: (one.index, one.sample))
    read = [_Output(task, one, settings, domains) for one in ordered]
    found = [(one, start, one.phrases(lookup, start)) for one in read for start in one.starts]
    readable = [window for window in found if window[2]]
    alone = standalone_perplexities(
        task, [one.ids(start, start + length) for one, start, _ in readable]
    )
    chance = _Chance(read, lookup, settings)
    windows: list[Window] = []
    with Progress("looking up", len(readable), "windows") as progress:
        for (one, start, phrases), standalone in zip(readable, alone, strict=True):
            count = lookup.count(phrases)
            controls = chance.rates(one, start, phrases)
            windows.append(one.window(start, count, standalone, controls))
            progress.advance()
    names = list(dict.fromkeys(one.domain for one in read))
    groups = [summarise(None, [one.read() for one in read], windows, settings.seed)]
    for name in names if len(names) > 1 else []:
        mine = [one.read() for one in read if one.domain == name]
        own = [window for window in windows if window.domain == name]
        groups.append(summarise(name or NO_DOMAIN, mine, own, settings.seed))
    record = {
        **asdict(settings),
        "least_counts": CATEGORIES,
        "control_draws": DRAWS,
        "control_tolerance": TOLERANCE,
    }
    return Memorization(record, lookup.manner, len(found) - len(readable), groups, windows)


class _Output:
    """One output, its windows, and the texts of stretches of its tokens, each decoded once."""

    def __init__(
        self,
        task: CausalLM,
        made: Generation,
        settings: Settings,
        domains: Sequence[str | None],
    ) -> None:
        self.made, self.length = made, settings.length
        self.domain = domains[made.index] if domains else None
        self.starts = probable_windows(made.p, settings.length, settings.threshold, settings.stride)
        self.runs = probable_runs(made.p, settings.threshold, settings.length)
        self._tokenizer = task.tokenizer
        self._ids = made.prompt_ids + made.ids
        self._texts: dict[tuple[int, int], str] = {}
        # Of an output that was given, the first token may begin with characters of the prompt.
        self._shift = max(self.text(0, len(made.ids)).find(made.text), 0)

    def ids(self, start: int, end: int) -> list[int]:
        return self.made.ids[start:end]

    def text(self, start: int, end: int) -> str:
        """Of the output's tokens [start, end), as they stand there."""
        if (start, end) not in self._texts:
            first = len(self.made.prompt_ids)
            self._texts[start, end] = text_between(
                self._tokenizer, self._ids, first + start, first + end
            )
        return self._texts[start, end]

    def characters(self, start: int, end: int) -> tuple[int, int]:
        """Where in the output's text its tokens [start, end) stand."""
        first, last = (len(self.text(0, place)) - self._shift for place in (start, end))
        longest = len(self.made.text)
        return min(max(first, 0), longest), min(max(last, 0), longest)

    def phrases(self, lookup: Lookup, start: int) -> list[Phrase]:
        """The window that starts there, as the corpus may hold it."""
        end = start + self.length
        return lookup.phrases(self.ids(start, end), "" if lookup.own else self.text(start, end))

    def free(self) -> list[int]:
        """Starts of the windows that share no token with a run of probable ones."""
        taken = np.zeros(len(self.made.ids), dtype=bool)
        for start, end in self.runs:
            taken[start:end] = True
        count = len(taken) - self.length + 1
        return [start for start in range(count) if not taken[start : start + self.length].any()]

    def window(
        self, start: int, count: int, standalone: float, controls: dict[str, float | None]
    ) -> Window:
        """The window that starts there, judged."""
        made, end = self.made, start + self.length
        p = made.p[start:end]
        prompt = prompt_words(made.prompt)
        return Window(
            prompt=made.index,
            sample=made.sample,
            domain=self.domain,
            start=start,
            characters=self.characters(start, end),
            text=self.text(start, end),
            tokens=self.ids(start, end),
            p=min(p),
            overlap=prompt_overlap(
                lambda low, high: self.text(start + low, start + high), self.length, prompt
            ),
            count=count,
            category=category(count),
            perplexity=float(np.mean(1 / np.asarray(p))),
            standalone=standalone,
            controls=controls,
        )

    def read(self) -> Read:
        """What the summary needs of it."""
        lengths = [end - start for start, end in self.runs]
        return Read(self.made.index, self.domain, len(self.made.ids), lengths)


class _Chance:
    """The control windows of each window, looked up in the same manner as it."""

    def __init__(self, read: Sequence[_Output], lookup: Lookup, settings: Settings) -> None:
        self._lookup, self._seed = lookup, settings.seed
        self._unigrams = Unigrams(lookup.counter.unigrams)
        free: dict[str | None, list[list[Phrase]]] = {}
        for one in read:
            phrases = [one.phrases(lookup, start) for start in one.free()]
            free.setdefault(one.domain, []).extend(phrases)
        self._pools = {domain: Pool.of(some, self._unigrams) for domain, some in free.items()}

    def rates(self, one: _Output, start: int, phrases: list[Phrase]) -> dict[str, float | None]:
        """By kind, the share of control windows that the corpus holds; None without such windows.

        The draws depend on the seed and on where the window stands, not on other windows.
        """
        generator = np.random.default_rng([self._seed, one.made.index, one.made.sample, start])
        unigrams, pool = self._unigrams, self._pools[one.domain]
        # A window that may stand in the corpus in two ways has controls that may, too.
        replaced = [replaced_windows(phrase, unigrams, generator) for phrase in phrases]
        shuffled = [shuffled_windows(phrase, generator) for phrase in phrases]
        drawn = {
            "other": other_windows(phrases[0], pool, unigrams, generator),
            "replaced": list(zip(*replaced, strict=False)),
            "shuffled": list(zip(*shuffled, strict=False)),
        }
        return {
            kind: float(np.mean([self._lookup.count(one) > 0 for one in drawn[kind]]))
            if drawn[kind]
            else None
            for kind in KINDS
        }
