"""Keys of answers that are reused where a job asks the store before its models. Pure."""

from __future__ import annotations

import hashlib

from pydantic_core import to_json

from fanout.config.settings import ProviderSettings
from fanout.core.schema import Call


def make_cache_key(account_id: str, call: Call, provider: ProviderSettings) -> bytes:
    """Return the digest of a whole call: whose it is, where it goes, and what is sent.

    The number of the repeat is part of it, so that repeats stay independent answers.
    """
    query = call.query
    prompt = (query.messages, query.prompt, query.prompt_tokens)
    parameters = (dict(call.fitted.sent), dict(query.passthrough), query.sampling.n)
    target = (provider.adapter, provider.base_url, call.target.model)
    # The account is part of it: nobody is served the answers of somebody else. Stored, so the order must stay.
    whole = (account_id, *target, *prompt, *parameters, call.sample)
    return hashlib.sha256(to_json(whole, inf_nan_mode="constants")).digest()
