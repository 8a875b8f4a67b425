"""Fanout in a program: questions, and jobs of many rows."""

from fanout.api.questions import ask, ask_stream, ask_sync, build_request

__all__ = ["ask", "ask_stream", "ask_sync", "build_request"]
