"""`fanout log`: the questions of this machine, and their answers."""

from fanout.cli.log.command import log

__all__ = ["log"]
