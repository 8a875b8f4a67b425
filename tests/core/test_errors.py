"""The messages of the exceptions."""

from __future__ import annotations

from fanout.core.errors import ConfigError, Fault, ProviderError, RequestError
from fanout.core.schema import Failure


def test_the_message_of_an_error_has_every_fault() -> None:
    faults = [Fault("a", "is wrong"), Fault("", "is empty", source="/own.json")]
    assert str(ConfigError("/file.json", faults)) == "/file.json: a: is wrong\n/own.json: is empty"
    assert str(RequestError(faults)) == "a: is wrong; is empty"
    assert str(ProviderError(Failure("server", "overloaded"))) == "overloaded"
