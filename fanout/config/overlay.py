"""The files of `providers.json`: read, merged entry by entry, and checked as one whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fanout.config.precedence import give_way
from fanout.config.providers_file import ModelRow, ProvidersFile
from fanout.config.rows import Rows
from fanout.config.trusted_files import explain_unreadable, read_trusted_file
from fanout.core.errors import ConfigError, Fault, RequestError
from fanout.core.faults import to_faults, to_json_path
from fanout.core.fusion_syntax import is_fusion, list_fused
from fanout.core.json_text import JsonObject
from fanout.core.suggestions import did_you_mean

SHIPPED = Path(__file__).with_name("providers.json")


@dataclass(frozen=True, slots=True)
class Layer:
    """One file, and its path."""

    source: str
    file: ProvidersFile


def read_layer(path: Path) -> Layer:
    """Read one file.

    Raises:
        ConfigError: with every fault of its shape, or because others may have written it.
    """
    try:
        text = path.read_bytes() if path == SHIPPED else read_trusted_file(path)
        faults = list(_find_duplicates(json.loads(text, object_pairs_hook=_Object)))
        if not faults:
            # Parsed once more by pydantic, which refuses what the first parser lets pass (a byte order mark aside).
            file = ProvidersFile.model_validate_json(text.removeprefix(b"\xef\xbb\xbf"), strict=True)
            return Layer(str(path), file)
    except OSError as error:
        faults = [Fault("", explain_unreadable(error))]
    except ValidationError as error:
        faults = to_faults(error, ProvidersFile)
    except (ValueError, RecursionError) as error:  # json's own message names line and column
        faults = [Fault("", f"is not valid JSON: {error}")]
    raise ConfigError(str(path), faults)


class _Object(dict[str, object]):
    """A JSON object that remembers names given twice, of which parsers silently keep the last."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.duplicates = [name for name in self if names.count(name) > 1] if len(names) > len(self) else []


def _find_duplicates(value: object, *path: str | int) -> Iterator[Fault]:
    if isinstance(value, _Object):
        for name in value.duplicates:
            yield Fault(to_json_path((*path, name)), "stands twice in one object")
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, child in children:
        yield from _find_duplicates(child, *path, step)


def overlay(layers: Sequence[Layer]) -> Rows:
    """Merge files, the later over the earlier: an entry replaces the one of its name whole, and `null` removes it."""
    rows = Rows()
    for layer in layers:
        _drop_orphans(rows, layer.source, _merge_file(rows, layer.source, layer.file))
    give_way(rows, str(SHIPPED))
    return rows


def remove_adapter(rows: Rows, adapter: str) -> frozenset[str]:
    """Remove the providers of an adapter and all that refers to them, whichever file has it; return the removed names."""
    removed = {("providers", name) for name, row in rows.providers.items() if row.adapter == adapter}
    models, sets = dict(rows.models), dict(rows.sets)
    rows.providers = {name: row for name, row in rows.providers.items() if ("providers", name) not in removed}
    _drop_orphans(rows, "", removed)
    rows.default_provider = {key: name for key, name in rows.default_provider.items() if name in rows.providers}
    spellings = (spelling for name in models.keys() - rows.models.keys() for spelling in (name, *models[name].aliases))
    return frozenset((*spellings, *(sets.keys() - rows.sets.keys()), *(name for _, name in removed)))


def _merge_file(rows: Rows, source: str, file: ProvidersFile) -> set[tuple[str, str]]:
    """Merge one file over the others; return the entries that it removed."""
    removed = set()
    for section in ("providers", "models", "sets", "default_provider"):
        merged: JsonObject = getattr(rows, section)
        for name, row in getattr(file, section).items():
            if row is not None:
                merged[name] = row
                rows.origin[section, name] = source
            elif name in merged:
                del merged[name]
                removed.add((section, name))
            # A removal that removes nothing is a typing error, and the entry that was meant would stay in use.
            elif section != "default_provider":
                hint = did_you_mean(name, merged)
                path = to_json_path((section, name))
                rows.faults.append(Fault(path, f"is `null`, but there is no shipped entry to remove{hint}", source=source))
    return removed


def _drop_orphans(rows: Rows, source: str, removed: set[tuple[str, str]]) -> None:
    """Remove what refers to removed entries.

    An operator who removes a provider need not also remove its shipped models, nor their places in shipped sets.
    """
    for name, model in list(rows.models.items()):
        # What the same file adds for a provider that it removes is a mistake, and is kept to be reported.
        if rows.origin["models", name] != source and ("providers", model.provider) in removed:
            del rows.models[name]
            removed.add(("models", name))
    for name, members in list(rows.sets.items()):
        if rows.origin["sets", name] != source:
            remaining = tuple(
                member
                for member in members
                if ("models", member) not in removed and ("providers", member.partition("/")[0]) not in removed
            )
            if remaining:
                rows.sets[name] = remaining
            else:
                del rows.sets[name]


class References:
    """Checks of the names by which entries refer to each other: each must mean something, and one thing only."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._names: dict[str, str] = {}
        """Models by each of their spellings, in lower case."""

    def faults(self) -> Iterator[Fault]:
        """Yield every reference that is wrong."""
        for name, row in self._rows.providers.items():
            if row.base_url is None and row.base_url_env is None and row.adapter == "openai":
                sentence = "is required, or `base_url_env`: the address of the API, like `https://host/v1`"
                yield self._fault("providers", name, ("base_url",), sentence)
        # Shipped ones first: where two claim one name, the fault is the operator's entry's.
        for name, model in sorted(self._rows.models.items(), key=lambda item: not self._is_shipped("models", item[0])):
            if model.provider not in self._rows.providers:
                yield self._fault("models", name, ("provider",), self._describe_unknown(model.provider))
            yield from self._check_model(name, model)
        for name, members in self._rows.sets.items():
            yield from self._check_set(name, members)
        for dialect, provider in self._rows.default_provider.items():
            if provider not in self._rows.providers:
                yield self._fault("default_provider", dialect, (), self._describe_unknown(str(provider)))

    def _check_model(self, name: str, model: ModelRow) -> Iterator[Fault]:
        for number, spelling in enumerate((name, *model.aliases)):
            below = ("aliases", number - 1) if number else ()
            literal = self._split_literal(spelling)
            if literal and literal != (model.provider, model.id) and not self._may_take("models", name, literal[0]):
                yield self._fault("models", name, below, _describe_literal(spelling, *literal))
            taken = self._names.setdefault(spelling.lower(), name)
            if taken != name:
                yield self._fault("models", name, below, f"`{spelling}` is already a name of model `{taken}`")

    def _check_set(self, name: str, members: tuple[str, ...]) -> Iterator[Fault]:
        taken = self._names.setdefault(name.lower(), name)
        if taken in self._rows.models:
            yield self._fault("sets", name, (), f"`{name}` would name both the model `{taken}` and the set `{name}`")
        elif taken != name:
            yield self._fault("sets", name, (), f"`{name}` is already the set `{taken}`")
        if (literal := self._split_literal(name)) and not self._may_take("sets", name, literal[0]):
            yield self._fault("sets", name, (), _describe_literal(name, *literal))
        if not members:
            yield self._fault("sets", name, (), "is empty: a set names at least one model")
        for number, member in enumerate(members):
            try:
                models = list_fused(member) if is_fusion(member) else (member,)
            except RequestError as error:
                yield self._fault("sets", name, (number,), error.faults[0].message)
                continue
            for model in models:
                if self._names.get(model.lower()) not in self._rows.models and not self._split_literal(model):
                    hint = did_you_mean(model, self._rows.models)
                    yield self._fault("sets", name, (number,), f"unknown model `{model}`{hint}")

    def _split_literal(self, name: str) -> tuple[str, str] | None:
        """Return provider and id of a name that is always taken literally."""
        provider, _, upstream_id = name.partition("/")
        return (provider, upstream_id) if upstream_id and provider in self._rows.providers else None

    def _describe_unknown(self, name: str) -> str:
        known = f"; known: {', '.join(self._rows.providers)}"
        return f"unknown provider `{name}`{did_you_mean(name, self._rows.providers) or known}"

    def _may_take(self, section: str, name: str, provider: str) -> bool:
        """Tell if an entry may bear the name of a provider's model: only the user's own, of a shipped provider's."""
        return self._is_shipped("providers", provider) and not self._is_shipped(section, name)

    def _is_shipped(self, section: str, name: str) -> bool:
        return self._rows.origin[section, name] == str(SHIPPED)

    def _fault(self, section: str, name: str, below: tuple[str | int, ...], message: str) -> Fault:
        return Fault(to_json_path((section, name, *below)), message, source=self._rows.origin[section, name])


def _describe_literal(name: str, provider: str, upstream_id: str) -> str:
    return f"`{name}` always means the model `{upstream_id}` of provider `{provider}`"
