"""Entries of a request's `model`: as the caller wrote them, and written out, with the members of sets and fusions. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fanout.config.catalogue import Catalogue
from fanout.core.errors import Fault, RequestError
from fanout.core.fusion import MAX_MEMBERS, MIN_MEMBERS
from fanout.core.fusion_syntax import PREFIX, is_fusion, parse_fusion, write_fusion
from fanout.core.json_text import JsonObject
from fanout.core.messages import Message
from fanout.core.sampling_fields import validate_sampling
from fanout.core.value_type import value_type
from fanout.dispatch.fusing import check_template

NESTED = "a fusion cannot be a member of a fusion"
NO_N = "has an `n`, which is for the whole request: each sample of a fusion is made of its members' samples of the same number"


@dataclass(frozen=True, slots=True)
class Fusion:
    """One answer that the model `by` makes of the answers of several, for lists of models in programs.

    `of` has 2 to 16 members: names, or mappings with `model` and parameters of their own. `template` replaces the words of
    its task, with `{{answers}}` where the answers belong. `parameters` are for the call of `by` alone.
    """

    of: Sequence[str | Mapping[str, Any]]
    by: str
    template: str | None = None
    label: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def to_mapping(self) -> JsonObject:
        """Return the fusion as it stands in a request."""
        written: JsonObject = {"of": list(self.of), "by": self.by}
        written |= {} if self.template is None else {"template": self.template}
        return {"fusion": written, **({} if self.label is None else {"label": self.label}), **self.parameters}


WrittenModel = str | Mapping[str, Any] | Fusion
Models = WrittenModel | Sequence[WrittenModel]
"""A name, a mapping with `model`, an optional `label` and sampling parameters of that entry alone, or a fusion; or several."""


@dataclass(frozen=True, slots=True)
class FusionEntry:
    """The part of an entry that makes it a fusion."""

    of: tuple[Entry, ...]
    template: str | None = None
    members: tuple[int, ...] = ()
    """Positions of the members among the entries, once these are written out."""


@value_type(frozen=True, slots=True)
class Entry:
    """One entry of the request's `model`: a name, and the parameters of this entry alone."""

    model: str
    label: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """By the names of `Sampling`; `None` removes the request's value."""
    passthrough: JsonObject = field(default_factory=dict)
    earlier: tuple[Message, ...] | None = None
    """Earlier messages of this entry alone; `None`: those of the request."""
    fusion: FusionEntry | None = None
    """Set where `model` makes one answer of those of several members."""
    copy: int = 0
    """Number among equal members of a fusion, which get different seeds."""
    is_member: bool = False
    """It stands in no list: it is called for fusions alone."""

    def to_mapping(self) -> JsonObject:
        """Return the entry as `parse_entries` takes it."""
        label = {"label": self.label} if self.label else {}
        if self.fusion is None:
            return {"model": self.model, **label, **self.overrides}
        fusion = Fusion([member.to_mapping() for member in self.fusion.of], self.model, self.fusion.template)
        return {**fusion.to_mapping(), **label, **self.overrides}


def parse_entries(models: Models, faults: list[Fault], place: str = "models") -> tuple[Entry, ...]:
    """Return the entries that a caller wrote; their faults are added to `faults`."""
    written = [models] if isinstance(models, (str, Mapping, Fusion)) else models
    if not written:
        faults.append(Fault(place, "is empty: at least one model must be named"))
    return tuple(_parse_entry(model, f"{place}[{number}]", faults) for number, model in enumerate(written))


def _parse_entry(model: WrittenModel, place: str, faults: list[Fault]) -> Entry:
    if isinstance(model, str) and model:
        return Entry(model)
    written = model.to_mapping() if isinstance(model, Fusion) else model
    fields: JsonObject = {"model": written} if isinstance(written, str) else dict(written)
    fusion = None
    if "fusion" in fields:
        fields["model"], fusion = _parse_fusion(fields.pop("fusion"), f"{place}.fusion", "model" in fields, faults)
    name, label = fields.pop("model", None), fields.pop("label", None)
    if not isinstance(name, str) or not name:
        faults.append(Fault(f"{place}.model", "is required: the name of a model"))
    return Entry(model=str(name), label=label, overrides=validate_sampling(fields, f"{place}.", faults), fusion=fusion)


def _parse_fusion(written: object, place: str, has_model: bool, faults: list[Fault]) -> tuple[str | None, FusionEntry | None]:
    """Return the model of a fusion, and its members."""
    fields = dict(written) if isinstance(written, Mapping) else {}
    of, by, template = fields.pop("of", None), fields.pop("by", None), fields.pop("template", None)
    before = len(faults)
    if has_model:
        faults.append(Fault(place, "stands beside `model`: an entry has one of the two"))
    if not isinstance(of, Sequence) or isinstance(of, str):
        faults.append(Fault(f"{place}.of", "is required: the list of its members"))
        of = ()
    if not isinstance(by, str) or not by:
        faults.append(Fault(f"{place}.by", "is required: the name of the model that makes one answer of theirs"))
    faults += [
        Fault(f"{place}.{name}", f"unknown field `{name}`; known: of, by, template", "unknown_parameter") for name in fields
    ]
    if template is not None and (problem := check_template(template)):
        faults.append(Fault(f"{place}.template", problem))
    if of:
        for number, member in enumerate(of):
            if isinstance(member, Fusion) or (isinstance(member, Mapping) and "fusion" in member):
                faults.append(Fault(f"{place}.of[{number}]", NESTED))
    if len(faults) > before:
        return by if isinstance(by, str) else "fusion", None
    return by, FusionEntry(parse_entries(of, faults, f"{place}.of"), template)


def expand_entries(written: Sequence[Entry], catalogue: Catalogue) -> tuple[Sequence[Entry], bool]:
    """Return the entries written out, and whether there are fusions among them.

    Sets are replaced by their members; the members of fusions stand behind all that was written. A member that equals another
    entry is that entry: it is called once, and its answer serves both.

    Raises:
        RequestError: a fusion is malformed, or has too few or too many members, or a fusion as a member.
    """
    expanded: list[Entry] = []
    is_plain = True
    for entry in written:  # nearly every request ends this loop with its entries as they are
        if entry.fusion is None and (catalogue.has_called(entry.model) or _is_plain(entry.model, catalogue)):
            expanded.append(entry)
        else:
            expanded += _expand_set(entry, catalogue)
            is_plain = False
    if is_plain or not any(entry.fusion for entry in expanded):
        return expanded, False
    places: dict[str, list[int]] = {}
    """By the model's name, so that a member is compared with few entries."""
    for place, entry in enumerate(expanded):
        places.setdefault(entry.model, []).append(place)
    for place, entry in enumerate(list(expanded)):
        if entry.fusion:
            members = _list_members(entry.fusion, f"model[{place}].fusion", catalogue)
            if "n" in entry.overrides or any("n" in member.overrides for member in members):
                raise RequestError([Fault(f"model[{place}].fusion", NO_N)])
            label = entry.label or write_fusion([member.label or member.model for member in members], entry.model)
            found = tuple(_find_or_append(member, expanded, places) for member in _number_copies(members))
            expanded[place] = replace(entry, label=label, fusion=replace(entry.fusion, members=found))
    return expanded, True


def add_self_fusions(written: Sequence[Entry], catalogue: Catalogue) -> tuple[Entry, ...]:
    """Return the entries, and for every member of every fusion the fusion of that member with itself, if it is not among them.

    Raises:
        RequestError: see `expand_entries`.
    """
    fusions: list[Entry] = []
    for place, entry in enumerate(found for one in written for found in _expand_set(one, catalogue)):
        if entry.fusion:
            members = tuple(_list_members(entry.fusion, f"model[{place}].fusion", catalogue))
            fusions.append(replace(entry, label=None, fusion=replace(entry.fusion, of=members)))
    added: list[Entry] = []
    for entry in fusions:
        of, template = (entry.fusion.of, entry.fusion.template) if entry.fusion else ((), None)
        own = [replace(entry, fusion=FusionEntry((member,) * len(of), template)) for member in of]
        added += [other for place, other in enumerate(own) if other not in (*fusions, *added, *own[:place])]
    return (*written, *added)


def _is_plain(name: str, catalogue: Catalogue) -> bool:
    return not name.startswith(PREFIX) and catalogue.find_set(name) is None


def _expand_set(entry: Entry, catalogue: Catalogue) -> Iterator[Entry]:
    """Yield the members of a set: entries with the parameters of the set's entry; any other entry as it is."""
    members = catalogue.find_set(entry.model) if entry.fusion is None else None
    if members is None:
        yield _parse_name(entry)
        return
    for member in members:
        yield _parse_name(replace(entry, model=member, label=f"{entry.label}: {member}" if entry.label else None))


def _parse_name(entry: Entry) -> Entry:
    """Return an entry whose name is that of a model: a fusion that was written as a name is taken apart."""
    if not is_fusion(entry.model) or entry.fusion:
        return entry
    of, by = parse_fusion(entry.model)
    return replace(entry, model=by, fusion=FusionEntry(tuple(map(Entry, of))))


def _list_members(fusion: FusionEntry, place: str, catalogue: Catalogue) -> list[Entry]:
    members = [member for entry in fusion.of for member in _expand_set(entry, catalogue)]
    if any(member.fusion for member in members):
        raise RequestError([Fault(f"{place}.of", NESTED)])
    if not MIN_MEMBERS <= len(members) <= MAX_MEMBERS:
        sentence = f"{len(members)} members are not allowed: {MIN_MEMBERS} to {MAX_MEMBERS}, sets written out"
        raise RequestError([Fault(f"{place}.of", sentence)])
    return members


def _number_copies(members: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the members, with equal ones numbered."""
    for place, member in enumerate(members):
        copy = sum(other == member for other in members[:place])
        yield replace(member, copy=copy) if copy else member


def _find_or_append(member: Entry, expanded: list[Entry], places: dict[str, list[int]]) -> int:
    """Return the position of the entry that equals a member; without one, the member is appended."""
    known = places.setdefault(member.model, [])
    for place in known:
        if replace(expanded[place], is_member=False) == member:
            return place
    known.append(len(expanded))
    expanded.append(replace(member, is_member=True))
    return known[-1]
