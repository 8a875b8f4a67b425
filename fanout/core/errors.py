"""The exceptions that leave a module on purpose, the faults they carry, and the sentence for a missing package.

FanoutError
├── ConfigError        the configuration cannot be used: every fault in it, at once
├── RequestError       a request cannot be carried out: every wrong field, at once
├── StoreError         the database cannot be read or written now
│   ├── LeaseLostError another process runs this job now
│   └── StoreClosedError the database is being closed: trying again is of no use
├── ServerError        a Fanout server (`fanout ask --server`) answered with an error
├── HookRefusalError   a hook refuses a call or its answer: raised by an operator's own Python
└── ProviderError      an upstream call failed: carries the `Failure`; never passes `dispatch`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

# No import of pydantic here: `fanout --version` needs these exceptions, and pydantic would slow its start.
if TYPE_CHECKING:
    from fanout.core.schema import Failure


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, what, and what is allowed instead."""

    path: str
    message: str
    kind: str = "invalid_value"
    source: str = ""
    """File that the fault is in, where one error covers several files."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class FanoutError(Exception):
    """Base of all exceptions of the package."""


class ListenError(FanoutError):
    """The server cannot listen on its address."""


class ConfigError(FanoutError):
    """The configuration cannot be used: names the file and, for every fault, its JSON path."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        # One line for each fault, because the command line prints the message unchanged.
        super().__init__("\n".join(f"{fault.source or source}: {fault}" for fault in self.faults))


class RequestError(FanoutError):
    """A request cannot be carried out: names every wrong field. `faults` is never empty."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class StoreError(FanoutError):
    """The database cannot be read or written now; the message is the database's own."""


class LeaseLostError(StoreError):
    """Another process runs this job now, so this process must not write anything more for it."""

    def __init__(self) -> None:
        super().__init__("another process runs this job now")


class StoreClosedError(StoreError):
    """The database did not answer in time at the end, and nothing waits for it any more."""

    def __init__(self) -> None:
        super().__init__("the database is being closed")


class StoppingError(FanoutError):
    """The process is being stopped: what was begun is given up, and nothing of it is kept."""

    def __init__(self) -> None:
        super().__init__("the server is stopping")


class ServerError(FanoutError):
    """A Fanout server answered with an error, or none could be reached."""


class HookRefusalError(FanoutError):
    """A hook refuses a call or its answer; its sentence is shown to the caller."""


class ProviderError(FanoutError):
    """One upstream attempt failed."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


def explain_missing_extra(package: str, extra: str) -> str:
    """Return the package that an extra brings and how to install it, as the object of a sentence.

    From the checkout, because `fanout` on PyPI is another project; editable, because a copy would no longer follow the
    checkout that `scripts/serve` installed.
    """
    return f"the package {package} (to install it: `pip install -e '.[{extra}]'` in Fanout's checkout)"
