"""Extraction of running prose from the English text that ships inside Python itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

UNDERLINE = re.compile(r"([^\w\s])\1{2,}")
LIST_MARK = re.compile(r"^(?:[*-]|\d+\.|\[\d+\]|\([a-z0-9]\))\s+")
FOOTNOTE = re.compile(r" ?\[\d+\]")
EMPHASIS = re.compile(r"\*(\S(?:[^*]*\S)?)\*")
QUOTES = str.maketrans({'"': None, "“": None, "”": None, "‘": "'", "’": "'"})
SENTENCES = re.compile(r".*[.!?]\)?(?=\s|$)")
MIN_LETTERS_RATIO = 0.86
"""A paragraph with a smaller share of letters is code, grammar or a table."""


def extract_documents(topics: Mapping[str, str]) -> Iterator[str]:
    """Yield the sections of `pydoc_data.topics`, in order of topic: paragraphs of whole sentences, separated by empty lines."""
    for name in sorted(topics):
        section: list[str] = []
        for block in re.split(r"\n\s*\n", topics[name]):
            lines = [line.strip() for line in block.strip("\n").split("\n")]
            if UNDERLINE.fullmatch(lines[-1]):  # a heading
                yield from ["\n\n".join(section)] if section else []
                section = []
            elif paragraph := _extract_prose(" ".join(lines)):
                section.append(paragraph)
        yield from ["\n\n".join(section)] if section else []


def _extract_prose(block: str) -> str:
    """Return a block without its markup and without an unfinished last sentence; an empty string if it is not prose."""
    # Interactive sessions and grammar rules.
    if ">>>" in block or "::=" in block:
        return ""
    text = " ".join(LIST_MARK.sub("", block).split())
    text = EMPHASIS.sub(r"\1", FOOTNOTE.sub("", text)).translate(QUOTES)
    sentences = SENTENCES.match(text)
    if not sentences or not re.match(r"[A-Z(]", text) or len(text.split()) < 6:
        return ""
    text = sentences[0]
    return text if sum(c.isalpha() or c == " " for c in text) >= MIN_LETTERS_RATIO * len(text) else ""
