"""`fanout init`: set up providers and their keys."""

from fanout.cli.init.command import init

__all__ = ["init"]
