"""The fixtures of the tests of the web."""

from tests.support.dialects import served
from tests.support.http_client import client, embedded

__all__ = ["client", "embedded", "served"]
