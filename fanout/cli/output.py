"""Lines of text and JSON on the standard output, and amounts: what commands print that need no table."""

from __future__ import annotations

import click

from fanout.core.json_text import encode_json
from fanout.core.shown_text import to_safe_json, to_safe_text


def format_usd(usd: float) -> str:
    """Return an amount of US dollars, to a millionth."""
    return f"${usd:.6f}".rstrip("0").rstrip(".")


def echo(text: str, *, err: bool = False) -> None:
    """Print text, of which foreign parts cannot steer the terminal."""
    click.echo(to_safe_text(text), err=err)


def echo_json(answer: object, *, indent: int | None = None) -> None:
    """Print what the server would answer, in UTF-8 whatever the terminal's encoding."""
    click.echo(to_safe_json(encode_json(answer, indent=indent).decode()).encode())
