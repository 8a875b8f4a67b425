"""Entries of a request resolved to the models that are called. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import date

from fanout.config.catalogue import Catalogue
from fanout.core.errors import Fault, RequestError
from fanout.core.fusion import FusedMembers
from fanout.core.json_text import JsonObject
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.schema import Credential, Failure, Target
from fanout.core.value_type import value_type
from fanout.dispatch.entries import Entry, expand_entries
from fanout.dispatch.fusion_plan import drop_unfused, make_fusion
from fanout.dispatch.refusals import find_refusal, refuse_fusion
from fanout.dispatch.request import Request

MAX_SEED = 2**63 - 1  # the contracts' limit, beyond which the seeds of samples wrap around


@value_type(frozen=True, slots=True)
class ResolvedEntry:
    """An entry whose name has been resolved to a target."""

    target: Target
    sampling: Sampling
    defaults: frozenset[str]
    passthrough: JsonObject
    earlier: tuple[Message, ...]
    samples: int
    refusal: Failure | None
    credential: Credential | None
    fusion: FusedMembers | None = None
    is_member: bool = False
    ignored: tuple[str, ...] = ()
    """Parameters that a fusion's own call is not sent."""

    def gets_query_of(self, other: ResolvedEntry) -> bool:
        """Return whether both get the same query. By identity: to compare values would cost more than building it."""
        return (
            self.target.kind == other.target.kind
            and self.sampling is other.sampling
            and self.passthrough is other.passthrough
            and self.earlier is other.earlier
        )

    @classmethod
    def from_entry(cls, entry: Entry, catalogue: Catalogue, request: Request, today: date) -> ResolvedEntry:
        """Resolve an entry of a request."""
        model = catalogue.find(entry.model)
        sampling = replace(request.sampling, **entry.overrides) if entry.overrides else request.sampling
        # The caller's `n` becomes calls of their own, because most providers take no `n`, and each sample needs its own
        # failure.
        samples = 1 if sampling.n is None else sampling.n
        # `n` becomes calls; it goes upstream only where a provider takes it and the request allows one call for all.
        sampling = sampling if sampling.n is None else replace(sampling, n=None)
        if entry.copy and sampling.seed is not None:
            sampling = replace(sampling, seed=wrap_seed(sampling.seed + entry.copy * samples))
        defaults = request.defaults
        if defaults and entry.overrides:
            defaults -= {name for name, value in entry.overrides.items() if value is not None}
        passthrough = {**request.passthrough, **entry.passthrough} if entry.passthrough else request.passthrough
        credential = request.credentials.get(model.provider) if model and request.credentials else None
        earlier = request.earlier if entry.earlier is None else entry.earlier
        label, refusal = entry.label or entry.model, None
        if model is None:
            target, refusal = Target(label, entry.model, None, None), catalogue.refuse_unknown(entry.model)
        else:
            target = catalogue.make_target(model, entry.model, label)
            if model.row and model.row.deprecated_on:
                refusal = catalogue.refuse_after_shutdown(model, today)
            refusal = refusal or find_refusal(model, catalogue, request, earlier)
        if entry.fusion is None:
            resolved = cls(target, sampling, defaults, passthrough, earlier, samples, refusal, credential)
            return replace(resolved, is_member=True) if entry.is_member else resolved
        refusal = refusal or refuse_fusion(request)
        sampling, passthrough, ignored = drop_unfused(sampling, passthrough)
        return cls(
            *(target, sampling, defaults, passthrough, earlier, samples, refusal, credential),
            *(make_fusion(entry.fusion, model), entry.is_member, ignored),
        )


@value_type(frozen=True, slots=True)
class Resolution:
    """Entries of a request with their positions, resolved once: a thousand prompts share them, and so may other requests."""

    catalogue: Catalogue
    today: date
    entries: Sequence[tuple[int, ResolvedEntry]]
    samples: int
    """Of all entries together."""
    has_fusions: bool

    @classmethod
    def make(cls, request: Request, catalogue: Catalogue, today: date, only: Collection[int] | None) -> Resolution:
        """Resolve the entries of a request, or some of them; for the arguments and what it raises see `plan.plan`."""
        expanded, has_fusions = expand_entries(request.entries, catalogue)
        entries = [
            (position, ResolvedEntry.from_entry(entry, catalogue, request, today))
            for position, entry in enumerate(expanded)
            if only is None or position in only
        ]
        samples = [entry.samples for _, entry in entries]
        if samples and min(samples) < 1:
            raise RequestError([Fault("n", "is at least 1")])
        return cls(catalogue, today, entries, sum(samples), has_fusions)


def resolve(request: Request, catalogue: Catalogue, today: date, only: Collection[int] | None) -> Resolution:
    """Return the entries of a request, resolved, as they are kept with its shape if it has one."""
    shape = request.shape
    if shape is None or only is not None or request.credentials:  # a caller's own key decides what can be called
        return Resolution.make(request, catalogue, today, only)
    kept = shape.resolution
    if isinstance(kept, Resolution) and kept.catalogue is catalogue and kept.today == today:
        return kept
    shape.resolution = made = Resolution.make(request, catalogue, today, only)
    return made


def wrap_seed(seed: int) -> int:
    """Return a seed within the bounds that every contract has."""
    # Wraps to the negative end: the greatest seed is legal, and its second sample must be, too.
    return seed if seed <= MAX_SEED else seed - 2 * (MAX_SEED + 1)
