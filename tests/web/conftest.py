"""The fixtures of the tests of the web."""

from tests.web.dialects import served

__all__ = ["served"]
