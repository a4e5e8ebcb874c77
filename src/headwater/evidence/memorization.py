"""What the windows of probable tokens come to: by domain, by how often the corpus holds them.

The categories are those of Wuhrmann et al. (ACL-SRW 2025, arXiv 2507.01844): 0 synthetic, 1 to 4
memorised, 5 to 49 segmental, more than 50 frequent. The text leaves exactly 50 open, and the
paper's code moves each border up by one; here a window found 50 times is frequent. A window in the
corpus is a match, not a cause: what it is worth is the difference to the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, pstdev
from typing import Any

import numpy as np

from headwater.evidence.chance import KINDS
from headwater.evidence.probable_windows import OVERLAPS
from headwater.evidence.rates import Rate, rate

# The least count of each; a category ends where the next begins.
CATEGORIES = {"synthetic": 0, "memorised": 1, "segmental": 5, "frequent": 50}


def category(count: int) -> str:
    """The category of a window that the corpus holds `count` times."""
    return [name for name, least in CATEGORIES.items() if count >= least][-1]


@dataclass(frozen=True)
class Window:
    """A window of probable tokens, and where it stands.

    Attributes:
        prompt, sample: which output. domain: of its prompt.
        start: its first token in the output. characters: its range in the output's text.
        text, tokens: the window. p: of its least probable token.
        overlap: with the prompt: "inside", "overlaps" or "none".
        count, category: in the corpus.
        perplexity: mean of 1 / p in its context. standalone: the same without one.
        controls: share of its control windows that the corpus holds, by kind; None where there is
            no window to compare with.
    """

    prompt: int
    sample: int
    domain: str | None
    start: int
    characters: tuple[int, int]
    text: str
    tokens: list[int]
    p: float
    overlap: str
    count: int
    category: str
    perplexity: float
    standalone: float
    controls: dict[str, float | None]


@dataclass(frozen=True)
class Read:
    """What was read: an output's prompt, domain, length, and its runs of probable tokens."""

    prompt: int
    domain: str | None
    tokens: int
    runs: list[int]


@dataclass(frozen=True)
class Share:
    """One category: its windows, their share, median count, stand-alone perplexity (quartiles)."""

    windows: int
    share: Rate
    count: float | None
    standalone: tuple[float, float, float] | None


@dataclass(frozen=True)
class Control:
    """Windows of equal unigram probability: how many match, and how many fewer than the real ones.

    Attributes:
        rate: mean over the windows that have such a control.
        difference: match rate less control rate on those windows, paired.
    """

    rate: Rate
    difference: Rate


@dataclass(frozen=True)
class Group:
    """A domain, or everything (`name` None).

    Attributes:
        prompts, outputs, tokens, windows: how many.
        run: mean length of the maximal runs that hold a window; run_deviation: its standard
            deviation; None without runs.
        categories: by name. overlap: windows by how they stand to the prompt.
        match: windows that the corpus holds. match_beyond_prompt: the same for those that the
            prompt does not hold whole.
        controls: by kind, see `evidence.chance`.
    """

    name: str | None
    prompts: int
    outputs: int
    tokens: int
    windows: int
    run: float | None
    run_deviation: float | None
    categories: dict[str, Share]
    overlap: dict[str, int]
    match: Rate
    match_beyond_prompt: Rate
    controls: dict[str, Control]


@dataclass(frozen=True)
class Memorization:
    """The whole result, in plain values.

    Attributes:
        settings: what decides the numbers. manner: how windows were looked up, in words.
        unreadable: windows that were left out since their text has half a character inside.
        groups: everything first, then each domain where there are several.
        windows: all of them, by prompt, sample and start.
    """

    settings: dict[str, Any]
    manner: str
    unreadable: int
    groups: list[Group]
    windows: list[Window]

    def examples(self, most: int = 3) -> dict[str, list[Window]]:
        """Up to `most` windows of each category: of different outputs, and not from the prompt,
        as far as there are such; the most frequent first."""
        found: dict[str, list[Window]] = {}
        for name in CATEGORIES:
            mine = [window for window in self.windows if window.category == name]
            mine.sort(key=lambda w: (OVERLAPS[::-1].index(w.overlap), -w.count))
            chosen: list[Window] = []
            outputs: set[tuple[int, int]] = set()
            texts: set[str] = set()
            for window in mine:
                place = (window.prompt, window.sample)
                if len(chosen) < most and place not in outputs and window.text not in texts:
                    chosen.append(window)
                    outputs.add(place)
                    texts.add(window.text)
            found[name] = chosen
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything but the list of all windows, of which there are examples."""
        record = asdict(self)
        del record["windows"]
        examples = self.examples().items()
        record["examples"] = {name: [asdict(w) for w in windows] for name, windows in examples}
        return record


def summarise(
    name: str | None, outputs: Sequence[Read], windows: Sequence[Window], seed: int
) -> Group:
    """The figures of a group; `seed` is that of the bootstrap."""
    prompts = np.asarray([window.prompt for window in windows], dtype=np.int64)
    matched = np.asarray([float(window.count > 0) for window in windows])
    beyond = np.asarray([window.overlap != "inside" for window in windows], dtype=bool)
    runs = [length for one in outputs for length in one.runs]
    controls: dict[str, Control] = {}
    for kind in KINDS:
        chance = np.asarray([window.controls[kind] for window in windows], dtype=np.float64)
        controls[kind] = Control(rate(chance, prompts, seed), rate(matched - chance, prompts, seed))
    return Group(
        name=name,
        prompts=len({one.prompt for one in outputs}),
        outputs=len(outputs),
        tokens=sum(one.tokens for one in outputs),
        windows=len(windows),
        run=fmean(runs) if runs else None,
        run_deviation=pstdev(runs) if runs else None,
        categories={one: _share(one, windows, prompts, seed) for one in CATEGORIES},
        overlap={kind: sum(w.overlap == kind for w in windows) for kind in OVERLAPS},
        match=rate(matched, prompts, seed),
        match_beyond_prompt=rate(matched[beyond], prompts[beyond], seed),
        controls=controls,
    )


def _share(name: str, windows: Sequence[Window], prompts: np.ndarray[Any, Any], seed: int) -> Share:
    mine = [window for window in windows if window.category == name]
    share = rate(np.asarray([float(w.category == name) for w in windows]), prompts, seed)
    if not mine:
        return Share(0, share, None, None)
    alone = [window.standalone for window in mine]
    low, middle, high = (float(v) for v in np.percentile(alone, [25, 50, 75]))
    return Share(len(mine), share, float(median(w.count for w in mine)), (low, middle, high))
