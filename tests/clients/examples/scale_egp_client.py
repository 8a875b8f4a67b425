"""Scale's older client: completions at /v2, whole and streamed, with and without an account; errors."""

import json
import os

from scale_egp.exceptions import EGPException
from scale_egp.sdk.client import EGPClient

URL, KEY = os.environ["FANOUT_URL"], os.environ["FANOUT_KEY"]
client = EGPClient(endpoint_url=URL, api_key=KEY, account_id="acct")
report = {}


def shown(completion):
    return [
        completion.completion.text,
        completion.completion.finish_reason,
        completion.token_usage and completion.token_usage.total,
    ]


report["completion"] = shown(client.completions().create(model="gpt-6-sol", prompt="hi", account_id="acct"))
report["stream"] = [
    chunk.completion.text for chunk in client.completions().stream(model="gpt-6-sol", prompt="hi", account_id="acct")
]
report["no_account"] = EGPClient(endpoint_url=URL, api_key=KEY).account_id


def raised(key=KEY, **given):
    try:
        EGPClient(endpoint_url=URL, api_key=key, account_id="acct").completions().create(account_id="acct", **given)
    except EGPException as error:
        return [type(error).__name__, error.code, str(error)[:200]]
    return None


report["errors"] = {
    "422": raised(model="llama-2-7b", prompt="x", images=[{"image_url": "https://x/y.png"}]),
    "404": raised(model="always-404", prompt="x"),
    "429": raised(model="always-429", prompt="x"),
    "502": raised(model="always-500", prompt="x"),
    "401": raised(key="wrong", model="gpt-6-sol", prompt="x"),
}
print(json.dumps(report))
