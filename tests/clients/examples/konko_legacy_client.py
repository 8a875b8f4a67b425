"""Konko's legacy interface, over openai 0.28."""

import json
import os

import konko
import openai

konko.set_api_base(os.environ["FANOUT_URL"] + "/v1")
konko.api_key = os.environ["FANOUT_KEY"]
report = {}

report["completion"] = konko.Completion.create(
    model="meta-llama/llama-2-13b", prompt="Summarize the Foundation by Isaac Asimov", max_tokens=16, repetition_penalty=1.1
)
report["chat"] = konko.ChatCompletion.create(
    model="nousresearch/nous-hermes-llama2-13b", messages=[{"role": "user", "content": "Hello"}], max_tokens=5
)
report["stream"] = [
    chunk["choices"][0]["text"]
    for chunk in konko.Completion.create(model="meta-llama/llama-2-13b", prompt="Hello", max_tokens=5, stream=True)
]
report["models"] = [model["id"] for model in konko.Model.list()["data"]]


def raised(**given):
    try:
        konko.Completion.create(**given)
    except openai.error.OpenAIError as error:
        return type(error).__name__
    return None


report["errors"] = {
    "400": raised(model="gpt-6-sol", prompt="x", temperature=7),
    "404": raised(model="gtp-4", prompt="x"),
    "429": raised(model="always-429", prompt="x"),
    "502": raised(model="always-500", prompt="x"),
}
konko.api_key = "wrong"
report["errors"]["401"] = raised(model="gpt-6-sol", prompt="x")
print(json.dumps(report))
