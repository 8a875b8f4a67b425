"""Konko's guides: completion, chat completion, models; sync and async; errors."""

import asyncio
import json
import os

import konko
import openai

URL, KEY = os.environ["FANOUT_URL"], os.environ["FANOUT_KEY"]
konko.base_url = f"{URL}/v1"
konko.api_key = KEY
konko.openai_api_key = "sk-own"
report = {}

completion = konko.completions.create(
    model="meta-llama/llama-2-13b", prompt="Summarize the Foundation by Isaac Asimov", max_tokens=500
)
report["completion"] = completion.model_dump()

chat = konko.chat.completions.create(
    model="nousresearch/nous-hermes-llama2-13b",
    messages=[{"role": "system", "content": "You are a summarizer"}, {"role": "user", "content": "Your prompt here..."}],
    temperature=0.1,
    max_tokens=300,
    n=1,
)
report["chat"] = chat.model_dump()

several = konko.completions.create(model=["meta-llama/llama-2-13b", "gpt-6-sol"], prompt="Hello", max_tokens=4)
report["several"] = [(choice.index, choice.model, choice.usage["completion_tokens"]) for choice in several.choices]

stream = konko.completions.create(model="meta-llama/llama-2-13b", prompt="Hello", max_tokens=6, stream=True)
report["stream"] = [chunk.choices[0].text for chunk in stream]

report["repetition_penalty"] = (
    konko.completions.create(
        model="meta-llama/llama-2-13b", prompt="Hello", max_tokens=4, extra_body={"repetition_penalty": 1.1}
    )
    .choices[0]
    .ignored_parameters
)

models = konko.models.list()
report["models"] = [model.id for model in models.data]
model = konko.models.retrieve("codellama/codellama-13b-instruct")
report["model"] = model.model_dump()


async def in_the_background():
    client = konko.AsyncKonko(base_url=f"{URL}/v1", api_key=KEY)
    answer = await client.chat.completions.create(
        model="nousresearch/nous-hermes-llama2-13b", messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    return answer.choices[0].message.content


report["async"] = asyncio.run(in_the_background())


def raised(call):
    try:
        call()
    except openai.APIError as error:
        return [type(error).__name__, getattr(error, "code", None), getattr(error, "param", None)]
    return None


client = konko.Konko(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
report["errors"] = {
    "400": raised(lambda: client.completions.create(model="gpt-6-sol", prompt="x", temperature=7)),
    "401": raised(lambda: konko.Konko(base_url=f"{URL}/v1", api_key="wrong").completions.create(model="gpt-6-sol", prompt="x")),
    "404": raised(lambda: client.completions.create(model="gtp-4", prompt="x")),
    "429": raised(lambda: client.completions.create(model="always-429", prompt="x")),
    "502": raised(lambda: client.completions.create(model="always-500", prompt="x")),
    "model": raised(lambda: client.models.retrieve("no-such/model")),
}
print(json.dumps(report))
