"""Texts in which nothing is hidden, for files that people open: plain, and within JSON.

Training texts are anybody's. What turns the writing direction, drives a terminal or cannot be seen
stands as an escape; in JSON every character can be had back from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

# Control characters, marks and turns of direction, what has no width, and halves of pairs.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """What cannot be seen, or turns what follows, as an escape; line breaks and tabs stay."""
    return UNSAFE.sub(lambda one: f"\\u{ord(one[0]):04x}", text)


def safe_json(value: Any, **options: Any) -> str:
    """JSON that holds every character, those that cannot be seen as escapes."""
    from headwater.server.told import as_json

    text = as_json(value)
    if options:
        text = json.dumps(json.loads(text), ensure_ascii=False, **options)
    return UNSAFE.sub(_escape, text)


def _escape(one: re.Match[str]) -> str:
    """Line breaks of the layout stay; within strings JSON has escaped control characters itself."""
    code = ord(one[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def json_lines(rows: Iterable[Any]) -> str:
    """One object a line."""
    return "".join(safe_json(row) + "\n" for row in rows)
