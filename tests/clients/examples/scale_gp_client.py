"""Scale's newer client: completions, whole and streamed, chat completions, models; errors."""

import json
import os

import scale_gp
from scale_gp import SGPClient

URL, KEY = os.environ["FANOUT_URL"], os.environ["FANOUT_KEY"]
client = SGPClient(base_url=URL, api_key=KEY, account_id="acct")
strict = SGPClient(base_url=URL, api_key=KEY, account_id="acct", _strict_response_validation=True)
report = {}

report["completion"] = client.completions.create(
    model="llama-2-7b", prompt="hi", model_parameters={"temperature": 0.2, "top_p": 0.9, "top_k": 5, "max_tokens": 8}
).model_dump()
report["strict"] = strict.completions.create(model="gpt-6-sol", prompt="hi", stream=False).model_dump()
report["full"] = client.completions.create(
    model="echo",
    prompt="hi",
    account_id="acct",
    images=[{"image_url": "https://x/y.png", "detail": "auto"}],
    model_parameters={"temperature": 0.2, "max_tokens": 10, "stop_sequences": ["\n"]},
    stream=False,
).model_dump()
report["stream"] = [
    chunk.completion["text"] if isinstance(chunk.completion, dict) else chunk.completion.text
    for chunk in client.completions.create(model="gpt-6-sol", prompt="hi", stream=True)
]
report["chat"] = client.chat_completions.create(
    model="llama-2-7b-chat",
    messages=[{"role": "user", "content": "hi"}],
    instructions="Be brief.",
    memory_strategy={"name": "last_k", "params": {"k": 1}},
    model_parameters={"max_tokens": 5},
).model_dump()
report["models"] = [model.name for model in strict.models.list(limit=3).items]
report["custom"] = client.completions.create(model="say-mine", prompt="hi").model_dump()


def raised(create, **given):
    try:
        create(**given)
    except scale_gp.APIStatusError as error:
        return [type(error).__name__, error.body["detail"][:200]]
    return None


once = SGPClient(base_url=URL, api_key=KEY, account_id="acct", max_retries=0).completions.create
report["errors"] = {
    "422": raised(once, model="gpt-6-sol", prompt="x", model_parameters={"temperature": 7}),
    "list": raised(once, model=["gpt-6-sol"], prompt="x"),
    "404": raised(once, model="always-404", prompt="x"),
    "429": raised(once, model="always-429", prompt="x"),
    "502": raised(once, model="always-500", prompt="x"),
    "401": raised(SGPClient(base_url=URL, api_key="wrong", account_id="a").completions.create, model="gpt-6-sol", prompt="x"),
}
try:
    for _ in client.completions.create(model="cut", prompt="hi", stream=True):
        pass
except scale_gp.APIStatusError as error:
    report["cut"] = error.body["detail"]
print(json.dumps(report))
