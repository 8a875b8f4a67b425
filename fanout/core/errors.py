"""Every exception that leaves a module of ours on purpose.

FanoutError
├── ConfigError        the configuration cannot be used: every fault in it, at once
├── RequestError       a request cannot be carried out: every wrong field, at once
├── StoreError         the database cannot be read or written now
│   └── LeaseLostError another process runs this job by now
├── ServerError        a Fanout server (`fanout ask --server`) answered with an error
└── ProviderError      an upstream call failed: carries the `Failure`; never passes `dispatch`
"""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.faults import Fault
from fanout.core.schema import Failure


class FanoutError(Exception):
    """Base of all."""


class ConfigError(FanoutError):
    """Names the file and, for every fault, its JSON path."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        super().__init__("\n".join(f"{fault.source or source}: {fault}" for fault in self.faults))


class RequestError(FanoutError):
    """Names every wrong field; `faults` is never empty."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class StoreError(FanoutError):
    """The database cannot be read or written now; why, in its own words."""


class LeaseLostError(StoreError):
    """Another process runs this job by now; nothing more is written for it by this one."""

    def __init__(self) -> None:
        super().__init__("another process runs this job now")


class ServerError(FanoutError):
    """What a Fanout server said, or that none was there."""


class ProviderError(FanoutError):
    """One upstream attempt failed."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)
