"""The fixtures of the tests of the web."""

from tests.web.client import client, embedded
from tests.web.dialects import served

__all__ = ["client", "embedded", "served"]
