"""Texts that attack whoever shows them, wherever text stands: examples, metadata, queries, boards.

Each tries to call `pwned()`, to load from `http://leak.test/`, or to turn round what stands beside
it. A page that shows them as text does none of that.
"""

from __future__ import annotations

from typing import Any

LEAK = "http://leak.test"
CALL = "window.pwned=1"  # what a text that is run does
SCRIPT = f"<script>{CALL}</script>"
IMAGE = f"<img src={LEAK}/i.png onerror={CALL}>"
ENDING = f"</script><script>{CALL}</script><!-- </style></textarea></svg>"
FRAME = f"<iframe srcdoc='{SCRIPT}'></iframe><link rel=stylesheet href={LEAK}/s.css>"
TURNED = "price \u202e0001 rof elas\u202c and \u2066isolated \u2067turned"  # right to left
BROKEN = (
    "broken \ufffd \ufffe \U000e0001 z\u0335\u0321\u0310a\u0306\u0301 \x0b \x7f \u2028 \u2029 end"
)
TEMPLATE = f"{{{{constructor.constructor('{CALL}')()}}}} ${{{CALL}}} {{@html '{IMAGE}'}}"
LONG = "endless " + "abcdefghij" * 10_000  # one word, 100 kB, and no place to break it
LINK = f"javascript:{CALL}"
BOARD_TITLE = f"Trak{IMAGE}"

PROMPT, COMPLETION = f"Say {SCRIPT} and", f" {IMAGE} {TURNED}"


def documents(*more: str) -> list[dict[str, Any]]:
    """Rows of a corpus; every id and every metadata value attacks, too."""
    texts = [SCRIPT, IMAGE, ENDING, FRAME, TURNED, BROKEN, TEMPLATE, f"[x]({LINK})", *more]
    rows = [
        {
            "id": f"{number}-{SCRIPT if number % 2 else IMAGE}",
            "text": f"Say {text} and more",
            "source": f"{IMAGE}{number % 3}",
            "url": LINK if number % 2 else f"data:text/html,{SCRIPT}",
            "more": f"  {LINK}",
            f"column {IMAGE}": ENDING,
        }
        for number, text in enumerate(texts)
    ]
    both = {"id": "both", "text": PROMPT + COMPLETION, "source": SCRIPT, "url": f"{LEAK}/page"}
    return [*rows, both]


def query_lines() -> list[dict[str, Any]]:
    """A query set whose every value attacks."""
    half = "half \ud800 of a pair"
    return [
        {
            "example_id": SCRIPT,
            "inputs_plaintext": PROMPT,
            "targets_plaintext": COMPLETION,
            "groundtruth": [IMAGE, half],
            "proponents": [SCRIPT, IMAGE, f"{TURNED} {half}"],
            "proponent_ids": [IMAGE, "javascript:1", TURNED],
            "proponent_scores": [3.0, 2.0, 1.0],
            f"field {IMAGE}": ENDING,
        }
    ]
