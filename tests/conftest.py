"""The fixtures that every test file may use."""

from hypothesis import HealthCheck, settings

from tests.asking import ask
from tests.commands import scripted
from tests.databases import bare_location, location
from tests.llama import llama
from tests.postgres import postgres_server, stoppable
from tests.serving import logged, server
from tests.upstreams import upstream

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
