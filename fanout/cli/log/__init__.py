"""`fanout log`: the questions asked on this machine, and their answers."""

from fanout.cli.log.command import log

__all__ = ["log"]
