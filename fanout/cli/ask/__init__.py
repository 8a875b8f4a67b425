"""`fanout ask`: one prompt to many models."""

from fanout.cli.ask.command import ask

__all__ = ["ask"]
