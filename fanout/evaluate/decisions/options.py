"""Options of decisions, which need no package of the extra `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

from fanout.core.errors import Fault, RequestError


@dataclass(frozen=True, slots=True)
class GateOptions:
    """A candidate, what it is compared with, and how much worse it may be."""

    model: str
    baseline: str
    margin: float
    """In the unit of the score."""
    metric: str | None = None
    """`None`: the job's only one."""
    baseline_job: str | None = None
    """Id of the earlier job that has the baseline; `None`: the same job."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The difference to be seen, and how surely."""

    difference: float
    alpha: float = 0.05
    power: float = 0.8
    repeats: int = 1
    metric: str | None = None
    model: str | None = None
    """Of the pilot, to be compared with the baseline; `None`: every two of its models."""
    baseline: str | None = None
    baseline_job: str | None = None
    """Id of the job that has the baseline; `None`: the pilot itself."""


def check_options(options: PlanOptions) -> None:
    """Refuse options that no plan can be made for, each by name."""
    faults = []
    if not options.difference:
        faults.append(Fault("difference", "0 is not allowed: no number of items shows a difference of nothing"))
    faults += [
        Fault(name, f"{value:g} is not allowed: between 0 and 1")
        for name, value in (("alpha", options.alpha), ("power", options.power))
        if not 0 < value < 1
    ]
    if (options.model is None) != (options.baseline is None) or (options.baseline_job and options.model is None):
        faults.append(Fault("baseline", "`model` and `baseline` belong together, and to `baseline_job`"))
    if options.repeats < 1:
        faults.append(Fault("repeats", f"{options.repeats} is not allowed: at least 1"))
    if faults:
        raise RequestError(faults)
