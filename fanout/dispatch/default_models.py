"""The models to ask where none is named: the user's own set, else what is ready."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from fanout.config.catalogue import Catalogue, Model
from fanout.config.providers_file import PriceRow
from fanout.config.settings import EMBEDDED, ProviderSettings, Settings
from fanout.core.usage import Usage
from fanout.dispatch import pricing

OWN_SET, EMBEDDED_SET = "mine", "embedded"
"""The set of the user's own models, which `fanout init` and `fanout models default` write; the shipped toys."""
MAX_DEFAULT_MODELS = 4
TYPICAL = Usage(input_tokens=1000, output_tokens=1000)
"""Usage by whose cost models are compared."""
SIZE = re.compile(r"(?<![\d.a-z])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DefaultModels:
    """Models that were not named, and the reason for them."""

    names: tuple[str, ...]
    reason: str


def choose_default_models(settings: Settings) -> DefaultModels:
    """Return the set `mine`, else the cheapest model of each of the first providers that are ready, else the embedded ones."""
    if OWN_SET in settings.sets:
        return DefaultModels((OWN_SET,), f"the set `{OWN_SET}`")
    catalogue = Catalogue(settings)
    ready = [row for row in settings.providers.values() if row.adapter != EMBEDDED and not row.lacks()]
    models = [name for row in ready if (name := find_cheapest_model(catalogue, row))][:MAX_DEFAULT_MODELS]
    if models:
        which = "the cheapest model of each ready provider" if len(models) > 1 else "the cheapest ready model"
        return DefaultModels(tuple(models), which)
    names = (EMBEDDED_SET,) if EMBEDDED_SET in settings.sets else ()
    return DefaultModels(names, "the embedded toys, because no provider has a key yet")


def find_cheapest_model(catalogue: Catalogue, provider: ProviderSettings) -> str | None:
    """Return the provider's cheapest model in the catalogue; `None` where it has none that is still served."""
    today = datetime.now(UTC).date()
    ours = [model for model in catalogue if model.provider == provider.name]
    current = [model for model in ours if not catalogue.refuse_after_shutdown(model, today)]

    def rank(model: Model) -> tuple[object, ...]:
        ends = model.row.deprecated_on if model.row else None
        # A model that ends within a year would soon fail those who came to rely on it.
        soon = bool(ends) and (date.fromisoformat(str(ends)) - today).days < 365
        return (model.kind == "text", soon, *rank_by_cost(provider, model.id, model.row.price if model.row else None))

    return min(current, key=rank).name if current else None


def rank_by_cost(provider: ProviderSettings, upstream_id: str, price: PriceRow | None = None) -> tuple[bool, float, float]:
    """Return a sort key: cheapest first; models of unknown price by their size, as far as the name tells it."""
    cost = pricing.compute_cost(TYPICAL, pricing.read_price(price), provider.priced_as, upstream_id)
    sizes: Sequence[float] = [float(size) for size in SIZE.findall(upstream_id)]
    return (cost is None, cost.usd if cost else 0.0, max(sizes, default=1e6))  # without a size it may be a large one
