"""The training text reads like prose."""

from __future__ import annotations

from fanout.providers.ngram.corpus import extract_documents
from tests.support.ngram_reference import pydoc_texts

TOPIC = """The "assert" statement
**********************

Assert statements are a *convenient* way to insert "debugging"
assertions into a program. [2] These equivalences assume that:

   if __debug__:
       if not expression: raise AssertionError

   assert_stmt ::= "assert" expression ["," expression]

Details
=======

* Note that it’s unnecessary to include the source code for the
  expression that failed.

Too short.
"""


def test_sections_are_unwrapped_and_lose_markup_headings_and_code() -> None:
    assert list(extract_documents({"assert": TOPIC})) == [
        "Assert statements are a convenient way to insert debugging assertions into a program.",
        "Note that it's unnecessary to include the source code for the expression that failed.",
    ]


def test_topics_are_in_the_order_of_their_names() -> None:
    def build_sentence(name: str) -> str:
        return f"This is a sentence about the letter {name}."

    assert list(extract_documents({"b": build_sentence("b"), "a": build_sentence("a")})) == [
        build_sentence("a"),
        build_sentence("b"),
    ]


def test_the_text_inside_python_is_long_and_made_of_whole_sentences() -> None:
    paragraphs = [paragraph for text in pydoc_texts() for paragraph in text.split("\n\n")]
    assert sum(map(len, paragraphs)) > 200_000
    assert all(paragraph.rstrip(")")[-1] in ".!?" for paragraph in paragraphs)
