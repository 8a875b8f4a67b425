"""The fixtures that every test file may use."""

from tests.asking import ask
from tests.commands import scripted
from tests.llama import llama
from tests.serving import logged, server
from tests.upstreams import upstream

__all__ = ["ask", "llama", "logged", "scripted", "server", "upstream"]
