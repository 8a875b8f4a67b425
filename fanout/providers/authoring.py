"""The public module `fanout.adapters`: everything an adapter outside the package needs. See docs/providers.md."""

from __future__ import annotations

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ConfigError, ProviderError
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.sampling import Sampling
from fanout.core.schema import (
    Answer,
    Call,
    Choice,
    Completion,
    Delta,
    Failure,
    FittedParameters,
    Query,
    Target,
    TokenLogprob,
)
from fanout.core.usage import Usage
from fanout.providers import OnHeaders, PreparableProvider, Provider
from fanout.providers.parameters import AcceptedParameters, Rule, accept, fit

__all__ = [
    "AcceptedParameters",
    "Answer",
    "Call",
    "Choice",
    "Completion",
    "ConfigError",
    "Delta",
    "Failure",
    "FittedParameters",
    "ImagePart",
    "Message",
    "OnHeaders",
    "OtherPart",
    "PreparableProvider",
    "Provider",
    "ProviderError",
    "ProviderSettings",
    "Query",
    "Rule",
    "Sampling",
    "Target",
    "TextPart",
    "TokenLogprob",
    "Usage",
    "accept",
    "fit",
]
