"""Shipped names give way to the user's own: an upgrade that ships a new name must not keep Fanout from starting."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.config.providers_file import ModelRow
from fanout.config.rows import Rows


def give_way(rows: Rows, shipped: str) -> None:
    """Take from shipped entries the names that the user's own entries bear, and note each.

    Args:
        rows: all entries, merged.
        shipped: the file that shipped entries come from.
    """
    own_models = [(name, row) for name, row in rows.models.items() if rows.origin["models", name] != shipped]
    owners = {spelling.lower(): f"model `{name}`" for name, row in own_models for spelling in (name, *row.aliases)}
    owners |= {name.lower(): f"set `{name}`" for name in rows.sets if rows.origin["sets", name] != shipped}
    own_providers = {name for name in rows.providers if rows.origin["providers", name] != shipped}

    def find_owner(spelling: str, row: ModelRow | None = None) -> str | None:
        provider, slash, upstream_id = spelling.partition("/")
        is_literal = bool(slash and upstream_id) and provider in own_providers
        if is_literal and (row is None or (provider, upstream_id) != (row.provider, row.id)):
            return f"provider `{provider}`"
        return owners.get(spelling.lower())

    _note_literals(rows, own_models, shipped)
    for name, row in list(rows.models.items()):
        if rows.origin["models", name] == shipped:
            _reduce_model(rows, name, row, {spelling: find_owner(spelling, row) for spelling in (name, *row.aliases)})
    for name in list(rows.sets):
        if rows.origin["sets", name] == shipped and (owner := find_owner(name)):
            del rows.sets[name]
            rows.notices.append(f"the shipped set `{name}` gives way to your {owner}")
    _drop_members(rows, shipped)


def _note_literals(rows: Rows, own_models: Sequence[tuple[str, ModelRow]], shipped: str) -> None:
    """Note each `<provider>/<id>` of a shipped provider that the user's own entries take."""
    taken: list[tuple[str, ModelRow | None, str]] = [
        (spelling, row, f"model `{name}`") for name, row in own_models for spelling in (name, *row.aliases)
    ]
    taken += [(name, None, f"set `{name}`") for name in rows.sets if rows.origin["sets", name] != shipped]
    for spelling, row, owner in taken:
        provider, _, upstream_id = spelling.partition("/")
        is_shipped = bool(upstream_id) and rows.origin.get(("providers", provider)) == shipped and provider in rows.providers
        if is_shipped and (row is None or (provider, upstream_id) != (row.provider, row.id)):
            rows.notices.append(f"`{upstream_id}` of the shipped provider `{provider}` gives way to your {owner}")


def _reduce_model(rows: Rows, name: str, row: ModelRow, owners: dict[str, str | None]) -> None:
    """Remove a shipped model whose name is taken, or those of its aliases that are."""
    if owner := owners[name]:
        del rows.models[name]
        rows.notices.append(f"the shipped model `{name}` gives way to your {owner}; `{row.provider}/{row.id}` still calls it")
    elif taken := [alias for alias in row.aliases if owners[alias]]:
        aliases = tuple(alias for alias in row.aliases if alias not in taken)
        rows.models[name] = row.model_copy(update={"aliases": aliases})
        rows.notices += [f"the alias `{alias}` of the shipped `{name}` gives way to your {owners[alias]}" for alias in taken]


def _drop_members(rows: Rows, shipped: str) -> None:
    """Remove from shipped sets what is no model any more."""
    known = {spelling.lower() for name, row in rows.models.items() for spelling in (name, *row.aliases)}
    for name, members in list(rows.sets.items()):
        if rows.origin["sets", name] == shipped:
            rows.sets[name] = tuple(
                member for member in members if member.lower() in known or member.partition("/")[0] in rows.providers
            )
