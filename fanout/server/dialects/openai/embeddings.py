"""`POST /v1/embeddings`, OpenAI's, with a list-valued `model`."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from fanout.core.json_text import encode_json
from fanout.core.schema import Outcome
from fanout.rendering.openai.answers import OpenAiHeadJson
from fanout.rendering.openai.embeddings import EmbeddingsJson, EncodingFormat, render_embeddings
from fanout.requests.openai.embeddings import DeploymentEmbeddingsBody, EmbeddingsBody
from fanout.server.dialects.openai.completions import AZURE, DEPLOYMENT, HEADERS
from fanout.server.dialects.openai.tasks import run_task
from fanout.server.openapi.endpoint import Endpoint, list_call_answers
from fanout.server.request_body import read_body


async def create_embeddings(request: web.Request) -> web.Response:
    """Serve `POST /v1/embeddings`.

    Raises:
        RequestError: with everything that is wrong between the fields.
    """
    return await _respond(request, await read_body(request, EmbeddingsBody))


async def create_deployment_embeddings(request: web.Request) -> web.Response:
    """Serve Azure's `POST /openai/deployments/{model}/embeddings`.

    Raises:
        RequestError: with everything that is wrong between the fields.
    """
    fields = {"model": request.match_info["model"]}
    return await _respond(request, await read_body(request, DeploymentEmbeddingsBody, fields))


async def _respond(request: web.Request, body: EmbeddingsBody) -> web.Response:
    encoding_format: EncodingFormat = body.encoding_format or "float"

    def write(outcomes: Sequence[Outcome], head: OpenAiHeadJson, total_s: float) -> bytes:
        return encode_json(render_embeddings(outcomes, head, total_s, encoding_format))

    return await run_task(request, body, write)


ENDPOINTS = (
    Endpoint(
        "POST /v1/embeddings",
        create_embeddings,
        id="embeddings",
        tag="OpenAI and Konko",
        summary="Embeddings",
        description="OpenAI's embeddings: their clients work unmodified. `model` may be a list: then `data` has the vectors of "
        "every model, and `choices` the usage, time, cost or error of each. Every provider is called in its own "
        "format, if that has embeddings; "
        "the embedded models answer with small vectors that count words: toys, the same for the same text everywhere.",
        body=EmbeddingsBody,
        examples={
            "one model": {"model": "local/ngram-5", "input": "The return statement"},
            "two models, two texts": {
                "model": ["local/ngram-5", {"model": "local/ngram-5", "label": "short", "dimensions": 8}],
                "input": ["The return statement", "A class definition"],
            },
        },
        headers=HEADERS,
        answers=list_call_answers(EmbeddingsJson, None, "A vector for every model and text."),
    ),
    Endpoint(
        "POST /openai/deployments/{model:.+}/embeddings",
        create_deployment_embeddings,
        id="deployment_embeddings",
        tag="OpenAI and Konko",
        summary="Embeddings at Azure's path",
        description=AZURE,
        body=DeploymentEmbeddingsBody,
        examples={"one text": {"input": "The return statement"}},
        headers=HEADERS,
        path_parameters=DEPLOYMENT,
        answers=list_call_answers(EmbeddingsJson, None, "A vector for every text."),
    ),
)
