"""Models as `/v1/models` shows them, in Konko's fields and Fanout's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from typing_extensions import Doc, TypedDict

from fanout.config.catalogue import Catalogue, Model
from fanout.config.providers_file import LimitsRow, ModelRow, PriceRow
from fanout.providers import find_adapter

STARTED_AT = int(time.time())
"""`created` of models without a published date: OpenAI's contract requires a number there."""


CHAT_ENDPOINTS = ("/v1/chat/completions", "/v1/responses")


class RampJson(TypedDict):
    """Slope of an account's starts: at most twice as many in each period as in the one before."""

    starts: Annotated[int, Doc("Starts in a period before which there were none.")]
    period_s: Annotated[float, Doc("Seconds of a period.")]


class ModelLimitsJson(TypedDict):
    """Limits of the account; null: not limited here."""

    requests_per_minute: Annotated[int | None, Doc("Requests started per minute.")]
    burst: Annotated[int | None, Doc("Requests that may start at the same moment.")]
    tokens_per_minute: Annotated[int | None, Doc("Tokens of prompts and answers per minute.")]
    token_bucket: Annotated[bool, Doc("They come back evenly, instead of a minute after each call.")]
    concurrency: Annotated[int | None, Doc("Requests in flight at once.")]
    ramp: Annotated[RampJson | None, Doc("Slope of the starts.")]


class ModelPriceJson(TypedDict):
    """US dollars per million tokens."""

    input_usd_per_mtok: Annotated[float, Doc("Price of the prompt.")]
    output_usd_per_mtok: Annotated[float, Doc("Price of the answer.")]
    cached_usd_per_mtok: Annotated[float | None, Doc("Price of prompt tokens read from the provider's cache.")]
    cache_write_usd_per_mtok: Annotated[float | None, Doc("Price of prompt tokens written to the provider's cache.")]


class ModelJson(TypedDict):
    """A model, with what it lacks if it is not ready. Facts that nobody published are null."""

    id: Annotated[str, Doc("Name to use in `model`.")]
    object: Literal["model"]
    created: Annotated[int, Doc("Unix seconds; the server's start if no date is published.")]
    owned_by: Annotated[str, Doc("The model's creator, or its provider.")]
    name: Annotated[str, Doc("Name for people.")]
    is_chat: Annotated[bool, Doc("Natively takes messages.")]
    is_text: Annotated[bool, Doc("Natively completes text.")]
    description: Annotated[str | None, Doc("What the model is for.")]
    creator: Annotated[str | None, Doc("Organization that made it.")]
    creator_logo_url: Annotated[str | None, Doc("Logo of the creator.")]
    category: Annotated[str | None, Doc("Kind of model, as Konko lists it.")]
    censorship: Annotated[str | None, Doc("How far it is moderated, as Konko lists it.")]
    max_context_length: Annotated[int | None, Doc("Tokens that prompt and answer may have together.")]
    license_name: Annotated[str | None, Doc("Licence of the model.")]
    license_url: Annotated[str | None, Doc("Text of the licence.")]
    public_endpoint_pricing: Annotated[str | None, Doc("Price as published, for people.")]
    private_endpoint_pricing: Annotated[str | None, Doc("Price of a dedicated endpoint as published, for people.")]
    docs_url: Annotated[str | None, Doc("The vendor's documentation.")]
    prompt_guide_url: Annotated[str | None, Doc("The vendor's guide to prompting.")]
    source: Annotated[str | None, Doc("Where these facts come from.")]
    deprecated_on: Annotated[str | None, Doc("Day on which its vendor shut it down, or will.")]
    successor: Annotated[str | None, Doc("Model that its vendor recommends instead.")]
    provider: Annotated[str, Doc("Provider that serves it.")]
    upstream_id: Annotated[str, Doc("Name that the provider knows.")]
    aliases: Annotated[Sequence[str], Doc("Other names that it answers to.")]
    endpoints: Annotated[Sequence[str], Doc("Paths at which it can be called here.")]
    ready: Annotated[bool, Doc("Can be called now.")]
    missing: Annotated[Sequence[str], Doc("Variables to set on the server before it can be called.")]
    limits: Annotated[ModelLimitsJson, Doc("Limits of its provider's account.")]
    price: Annotated[ModelPriceJson | None, Doc("Price set in providers.json.")]


class ModelSetJson(TypedDict):
    """Several models under one name."""

    id: Annotated[str, Doc("Name to use in `model`.")]
    models: Annotated[Sequence[str], Doc("Its members, in their order.")]


class ModelListJson(TypedDict):
    object: Literal["list"]
    data: Annotated[list[ModelJson], Doc("The models.")]
    sets: Annotated[list[ModelSetJson], Doc("Sets of models.")]


def render_models(models: Iterable[Model], catalogue: Catalogue) -> ModelListJson:
    """Return models as a list, and all sets."""
    sets: list[ModelSetJson] = [{"id": name, "models": members} for name, members in catalogue.sets.items()]
    return {"object": "list", "data": [render_model(model, catalogue) for model in models], "sets": sets}


def render_model(model: Model, catalogue: Catalogue) -> ModelJson:
    """Return a model as `/v1/models` shows it."""
    # A model of a default provider has no row; clients still need every field.
    row = model.row or ModelRow(provider=model.provider, id=model.id, kind=model.kind)
    lacks, provider = catalogue.lacks(model), catalogue.find_provider(model).row
    # By today's date and not at the start: a server runs for months, and a retired model must not look ready.
    is_retired = catalogue.refuse_after_shutdown(model, datetime.now(UTC).date()) is not None
    return {
        "id": model.name,
        "object": "model",
        "created": STARTED_AT if row.created is None else row.created,
        "owned_by": row.creator or model.provider,
        "name": row.name or model.name,
        # Konko's contract has two flags where Fanout has one kind; a model of kind `both` sets both.
        "is_chat": model.kind != "text",
        "is_text": model.kind != "chat",
        "description": row.description,
        "creator": row.creator,
        "creator_logo_url": row.creator_logo_url,
        "category": row.category,
        "censorship": row.censorship,
        "max_context_length": row.max_context_length,
        "license_name": row.license_name,
        "license_url": row.license_url,
        "public_endpoint_pricing": row.public_endpoint_pricing,
        "private_endpoint_pricing": row.private_endpoint_pricing,
        "docs_url": row.docs_url,
        "prompt_guide_url": row.prompt_guide_url,
        "source": row.source,
        "deprecated_on": row.deprecated_on,
        "successor": row.successor,
        "provider": model.provider,
        "upstream_id": model.id,
        "aliases": row.aliases,
        # A chat model completes text too, as the prompt of a user's message; a text model cannot take messages.
        "endpoints": [
            "/v1/completion",
            "/v1/completions",
            *(CHAT_ENDPOINTS if model.kind != "text" else ()),
            *(["/v1/tokenize"] if find_adapter(provider, "tokenize") else ()),
        ],
        "ready": not lacks and not is_retired,
        "missing": lacks,
        "limits": render_limits(provider.limits),
        "price": _render_price(row.price),
    }


def render_limits(limits: LimitsRow) -> ModelLimitsJson:
    """Return the limits that are set for an account."""
    return {
        "requests_per_minute": limits.requests_per_minute,
        "burst": limits.burst,
        "tokens_per_minute": limits.tokens_per_minute,
        "token_bucket": limits.token_bucket,
        "concurrency": limits.concurrency,
        "ramp": {"starts": limits.ramp.starts, "period_s": limits.ramp.period_s} if limits.ramp else None,
    }


def _render_price(price: PriceRow | None) -> ModelPriceJson | None:
    if price is None:
        return None
    return {
        "input_usd_per_mtok": price.input_usd_per_mtok,
        "output_usd_per_mtok": price.output_usd_per_mtok,
        "cached_usd_per_mtok": price.cached_usd_per_mtok,
        "cache_write_usd_per_mtok": price.cache_write_usd_per_mtok,
    }
