"""Thiggle's own example, and its errors. The client returns plain dicts."""

import json
import os

import requests
import thiggle as tg

URL, KEY = os.environ["FANOUT_URL"], os.environ["FANOUT_KEY"]
api = tg.API(KEY)
api.base_url = URL
report = {}

report["example"] = api.completion(
    "Once upon a time",
    model=["gpt-6-sol", "llama-2-70b"],
    max_tokens=50,
    temperature=0.7,
    top_p=0.8,
    stop=["."],
    presence_penalty=0.5,
    frequency_penalty=-0.5,
)
report["one"] = api.completion("Once upon a time", model="llama-2-70b", max_tokens=3)
report["partial"] = api.completion("Once upon a time", model=["llama-2-70b", "always-500"], max_tokens=3)


def status(call):
    try:
        call()
    except requests.HTTPError as error:
        return error.response.status_code
    return None


report["errors"] = {
    "400": status(lambda: api.completion("x", model="gpt-6-sol", temperature=7.0)),
    "404": status(lambda: api.completion("x", model="gtp-4")),
    "429": status(lambda: api.completion("x", model="always-429")),
    "502": status(lambda: api.completion("x", model=["always-500"])),
}
wrong = tg.API("wrong")
wrong.base_url = URL
report["errors"]["401"] = status(lambda: wrong.completion("x", model="gpt-6-sol"))
print(json.dumps(report))
