"""Requests that a model cannot answer, found before anything is sent."""

from __future__ import annotations

from fanout.config.catalogue import Catalogue, Model
from fanout.config.settings import ProviderSettings
from fanout.core.messages import Message
from fanout.core.schema import Failure, Task
from fanout.dispatch.request import Request
from fanout.providers import EMBEDDERS, find_adapter

TOKEN_ID_ADAPTERS = frozenset({"ngram", "openai"})
"""Adapters whose text models take a prompt as token ids."""


def find_refusal(model: Model, catalogue: Catalogue, request: Request, earlier: tuple[Message, ...]) -> Failure | None:
    """Return the failure of calls to a model that cannot answer such a request; `None`: they can be sent."""
    if catalogue.lacks(model, own_key=model.provider in request.credentials):
        return catalogue.refuse_without_settings(model)
    if request.task != "answer":
        return _find_task_refusal(catalogue.find_provider(model), request.task)
    if request.messages is not None and model.kind == "text":
        sentence = f"`{model.name}` completes text and takes no messages; call it at `/v1/completion` or `/v1/completions`"
        return Failure("unsupported", sentence, code="unsupported_endpoint", param="model")
    if earlier and model.kind == "text":
        sentence = f"`{model.name}` completes text and takes no `messages`; send the whole text as `prompt`"
        return Failure("unsupported", sentence, code="unsupported_endpoint", param="messages")
    if not request.has_ids:
        return None
    if model.kind == "chat" or catalogue.find_provider(model).adapter not in TOKEN_ID_ADAPTERS:
        sentence = f"`{model.name}` takes no token ids, which depend on the tokenizer; send the prompt as text"
        return Failure("unsupported", sentence, code="unsupported_prompt", param="prompt")
    return None


def refuse_fusion(request: Request) -> Failure | None:
    """Return the failure of a fusion that cannot answer such a request."""
    if request.task != "answer":
        sentence = "a fusion makes a text, and has neither embeddings nor tokens of its own"
        return Failure("unsupported", sentence, code="unsupported_endpoint", param="model")
    if request.has_ids:
        sentence = "a fusion is made of texts, and takes no token ids; send the prompt as text"
        return Failure("unsupported", sentence, code="unsupported_prompt", param="prompt")
    return None


def _find_task_refusal(provider: ProviderSettings, task: Task) -> Failure | None:
    if find_adapter(provider.row, task) is not None:
        return None
    if task == "embed":
        known = ", ".join(f"`{name}`" for name in sorted(EMBEDDERS))
        sentence = f"`{provider.name}` has no embeddings here; providers of the adapters {known} do"
    else:
        sentence = f"`{provider.name}` has no endpoint that tells the tokens of a prompt, or its row names no `tokenizer`"
    return Failure("unsupported", sentence, code="unsupported_endpoint", param="model")
