"""How a window of an output is looked up in a corpus whose tokens may be another tokenizer's.

With the model's own tokenizer its tokens are looked up as they are. With another one, the window's
text is tokenised again, both as it stands after a space and after none (at the beginning of a line,
behind a bracket); a window that ends within a word can then be missed, and the result says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from headwater.evidence.tokenizer import TextTokenizer

Phrase = tuple[int, ...]

AS_THEY_ARE = "tokens as the model made them"
AGAIN = (
    "the windows' text, tokenised again by {name}: a window that begins or ends within a word can "
    "be missed"
)


class Counter(Protocol):
    """What counts phrases in a corpus, such as `evidence.verbatim.Verbatim`."""

    @property
    def unigrams(self) -> np.ndarray[Any, Any]:
        """How often each token stands in the corpus, int64 [vocabulary]."""
        ...

    def count(self, tokens: Sequence[int], /) -> int:
        """How often the tokens stand in the corpus one after the other."""
        ...


class Lookup:
    """Counts of windows, each distinct phrase looked up once.

    Args:
        counter: the corpus.
        forms: of the corpus's tokenizer, text -> ids without and with a space before it, none of
            which occurs where another does; None where it is the model's own.
        name: of that tokenizer, for what the result says.
    """

    def __init__(
        self,
        counter: Counter,
        forms: Callable[[str], Sequence[Phrase]] | None = None,
        name: str = "another tokenizer",
    ) -> None:
        self.counter = counter
        self._forms = forms
        self._counts: dict[Phrase, int] = {}
        self.manner = AS_THEY_ARE if forms is None else AGAIN.format(name=name)

    @property
    def own(self) -> bool:
        """Whether the corpus has the model's own tokens."""
        return self._forms is None

    def phrases(self, tokens: Sequence[int], text: str) -> list[Phrase]:
        """The window as the corpus may hold it; none where its text has half a character inside.

        The first phrase is the window as it stood in the output. No occurrence in the corpus is one
        of two of them.
        """
        if self._forms is None:
            return [tuple(tokens)]
        bare = text.strip("\ufffd").strip()
        if not bare or "\ufffd" in bare:
            return []
        spaced = text.strip("\ufffd")[:1].isspace()
        made = list(self._forms(bare))
        return made[::-1] if spaced else made

    def count(self, phrases: Sequence[Phrase]) -> int:
        """How often the corpus holds them, together."""
        size = len(self.counter.unigrams)
        for phrase in phrases:
            if phrase not in self._counts:
                # A model may have more tokens than its tokenizer; no corpus holds those.
                known = max(phrase) < size
                self._counts[phrase] = int(self.counter.count(phrase)) if known else 0
        return sum(self._counts[phrase] for phrase in phrases)


def lookup_in(counter: Counter, corpus: TextTokenizer, model: Any) -> Lookup:
    """The way to look up outputs of a model in a corpus.

    Args:
        counter: the corpus. corpus: the tokenizer of its tokens.
        model: the model's own tokenizer (transformers, fast).
    """
    from headwater.evidence.tokenizer import TextTokenizer

    own = TextTokenizer.from_json(model.backend_tokenizer.to_str(), "the model's own")
    if own.fingerprint == corpus.fingerprint:
        return Lookup(counter)
    return Lookup(counter, corpus.spellings, corpus.name)
