"""The models behind every name: provider, upstream id, kind, published facts, missing configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from fanout.config.providers_file import ModelRow
from fanout.config.settings import ProviderSettings, Settings
from fanout.core.schema import Failure, Kind, Target
from fanout.core.suggestions import did_you_mean, find_near


@dataclass(frozen=True, slots=True)
class Model:
    """A name that can be called."""

    name: str
    """The canonical name."""
    provider: str
    id: str
    kind: Kind
    row: ModelRow | None
    """`None` for an id of a configured provider without an entry of its own."""


class Catalogue:
    """The configured models, found by any of their names."""

    def __init__(self, settings: Settings, *, is_serving: bool = False) -> None:
        """Read the settings; `is_serving` makes its sentences speak to callers of a server instead of its user."""
        self._is_serving = is_serving
        self._providers, self._switched_off = settings.providers, settings.switched_off
        self._models = {
            name: Model(name=name, provider=row.provider, id=row.id, kind=row.kind, row=row)
            for name, row in settings.models.items()
        }
        # Reversed: of several entries for one upstream id the first counts.
        self._by_id = {(model.provider, model.id): model for model in reversed(self._models.values())}
        self._by_name = {
            spelling.lower(): model
            for model in self._models.values()
            for spelling in (model.name, *(model.row.aliases if model.row else ()))
        }
        self.sets = settings.sets
        """Members by the set's name."""
        self._sets = {name.lower(): members for name, members in settings.sets.items()}
        aliases = [alias for row in settings.models.values() for alias in row.aliases]
        self._by_literal = {
            spelling: model
            for model in self._models.values()
            for spelling in (model.name, *(model.row.aliases if model.row else ()))
            if self._split_literal(spelling)
        }
        """Entries named like a `<provider>/<id>`; a user's own file may put another model there, or give it a price."""
        self._spellings = (*settings.models, *aliases, *settings.sets)
        self._entries = {spelling.lower(): spelling for spelling in (*settings.models, *aliases)}
        self._targets: dict[str, tuple[Model, Target]] = {}
        """Those of the entries that have been called by their own name, as nearly all are: a call finds its model twice."""

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, name: str) -> Model | None:
        """Return the model of a name: `<provider>/<id>` literally, else an entry or alias, case aside; none of a set's."""
        if known := self._targets.get(name):
            return known[0]
        if name.lower() in self._sets:
            return None
        # Literal names come before aliases, except where an entry has just that name: as spelt, for ids have a case.
        literal = self._split_literal(name)
        if literal is None or name in self._by_literal:
            return self._by_literal.get(name) or self._by_name.get(name.lower())
        provider, upstream_id = literal
        return self._by_id.get(literal) or Model(
            name=name, provider=provider, id=upstream_id, kind=self._providers[provider].row.default_kind, row=None
        )

    def has_called(self, name: str) -> bool:
        """Return whether it is known to be a model's own name, and that of no set."""
        return name in self._targets

    def make_target(self, model: Model, name: str, label: str) -> Target:
        """Return the target of a call to the model that `find` gives for a name."""
        known = self._targets.get(name)
        if known and label == name:
            return known[1]
        group = model.row.limit_group if model.row else None
        target = Target(label, name, model.provider, model.id, model.kind, limit_group=group, listed_as=self.spell(name))
        if label == name == model.name and model.row is not None:  # no other spelling, of which callers choose any number
            self._targets[name] = (model, target)
        return target

    def _split_literal(self, name: str) -> tuple[str, str] | None:
        provider, _, upstream_id = name.partition("/")
        return (provider, upstream_id) if upstream_id and provider in self._providers else None

    def spell(self, name: str) -> str | None:
        """Return the name of a model as the configuration spells it; `None` where it has no entry."""
        provider, _, upstream_id = name.partition("/")
        return name if (provider, upstream_id) in self._by_id else self._entries.get(name.lower())

    def find_set(self, name: str) -> tuple[str, ...] | None:
        """Return the models of a set; `None` where no set has that name."""
        return self._sets.get(name.lower())

    def find_provider(self, model: Model) -> ProviderSettings:
        """Return the provider that serves a model."""
        return self._providers[model.provider]

    def lacks(self, model: Model, *, own_key: bool = False) -> tuple[str, ...]:
        """Return the variables that must be set before the model can be called; none when it is ready."""
        return self._providers[model.provider].lacks(own_key=own_key)

    def refuse_unknown(self, name: str) -> Failure:
        """Return the failure for an unknown name, with the names near it."""
        provider, slash, upstream_id = name.partition("/")
        if name.lower() in self._switched_off or (slash and provider in self._switched_off):
            message = f"`{name}` is switched off here (FANOUT_EMBEDDED_MODELS=off)"
            return Failure("not_found", message, code="model_not_found", param="model")
        # A mistyped provider: the id behind it is taken as it is.
        hosts = find_near(provider, self._providers, most=1) if slash and upstream_id else []
        literal = [f"{host}/{upstream_id}" for host in hosts if host != provider]
        hint = did_you_mean(name, (*literal, *self._spellings))
        listing = "`GET /v1/models` lists" if self._is_serving else "`fanout models` lists"
        message = f"unknown model `{name}`{hint or f'; {listing} what is known'}"
        return Failure("not_found", message, code="model_not_found", param="model")

    def refuse_after_shutdown(self, model: Model, today: date) -> Failure | None:
        """Return the failure for a model that its vendor has shut down; another model is never called in its stead."""
        row = model.row
        if row is None or row.deprecated_on is None or date.fromisoformat(row.deprecated_on) > today:
            return None
        instead = f"; its vendor names `{row.successor}` as successor" if row.successor else ""
        message = f"`{model.name}` was shut down by its vendor on {row.deprecated_on}{instead}"
        return Failure("not_found", message, code="model_retired", param="model")

    def refuse_without_settings(self, model: Model) -> Failure:
        """Return the failure for a model without configuration: the variables to set, or the header that replaces them."""
        provider = self.find_provider(model)
        needed = " and ".join(f"`{name}`" for name in provider.lacks()).replace(" or ", "` or `")
        if not self._is_serving:
            command = f"init --provider {provider.name}" if provider.missing else f"keys set {provider.name}"
            message = f"`{model.name}` needs {needed}; `fanout {command}` sets {'them' if provider.missing else 'it'}"
        else:
            message = f"`{model.name}` needs {needed} in the server's environment"
            # A caller's key replaces ours alone: it is no help where an address is missing, too.
            if provider.row.key_header and not provider.missing:
                message += f", or a key of your own in the header `{provider.row.key_header}`"
        return Failure("not_configured", message, code="provider_not_configured", param="model")
