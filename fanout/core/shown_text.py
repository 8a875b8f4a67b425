"""Text that others wrote, as a terminal or a log shows it: it must not steer the one, nor forge lines of the other.

Applied where text leaves: the console and `echo` of the command line, the renderers of the log. JSON has escapes of its own.
"""

from __future__ import annotations

import re

CODE = re.compile(r"`([^`]+)`")
DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
# Each control character is shown as its picture. Lone surrogates cannot be encoded.
SAFE_CHARACTERS = str.maketrans(
    {chr(code): chr(0x2400 + code) for code in range(32)}
    | dict.fromkeys(map(chr, (*range(127, 160), *range(0xD800, 0xE000))), "\ufffd")
    | {"\t": "\t", "\n": "\n", "\r": ""}
    # These turn the order of what stands around them. Source: Unicode UAX 9 §2, https://trojansource.codes
    | dict.fromkeys(map(chr, DIRECTIONS), "")
)
# JSON itself escapes what stands below the space, but not these, by which some terminals are steered, too.
JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(127, 160), *DIRECTIONS)}


def to_safe_text(text: str) -> str:
    """Return foreign text without characters that could steer the terminal."""
    return text.translate(SAFE_CHARACTERS)


def to_single_line(text: str) -> str:
    """Return foreign text as one line that cannot steer the terminal."""
    return " ".join(to_safe_text(text).split())


def split_code(text: str) -> list[str]:
    """Return the parts of a sentence of ours; every second one stood between backticks, and is a command or a name."""
    return CODE.split(text)


def to_safe_json(text: str) -> str:
    """Return JSON that shows control characters as escapes, all of them."""
    # Searched first: nearly no line holds such a character, and replacing none takes four times as long.
    return text if text.isascii() and "\x7f" not in text else text.translate(JSON_ESCAPES)
