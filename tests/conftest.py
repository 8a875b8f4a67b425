"""The fixtures that every test file may use."""

from hypothesis import HealthCheck, settings

from tests.support.asking import ask
from tests.support.cli import scripted
from tests.support.databases import bare_location, location
from tests.support.llama import llama
from tests.support.postgres import postgres_server, stoppable
from tests.support.server import logged, server
from tests.support.upstreams import upstream

__all__ = [
    "ask",
    "bare_location",
    "llama",
    "location",
    "logged",
    "postgres_server",
    "scripted",
    "server",
    "stoppable",
    "upstream",
]

# How long an example takes is the machine's doing, which others use as well.
settings.register_profile("patient", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
