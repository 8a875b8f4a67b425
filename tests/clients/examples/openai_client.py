"""The examples of OpenAI's own client: whole, streamed, async, raw, strictly validated; errors and retries."""

import asyncio
import json
import os

import openai
from openai import AsyncOpenAI, AzureOpenAI, OpenAI

URL, KEY = os.environ["FANOUT_URL"] + "/v1", os.environ["FANOUT_KEY"]
MESSAGES = [
    {"role": "developer", "content": "Talk like a pirate."},
    {"role": "user", "content": "How do I check if a Python object is an instance of a class?"},
]
client = OpenAI(base_url=URL, api_key=KEY)
strict = OpenAI(base_url=URL, api_key=KEY, _strict_response_validation=True)
report = {}

chat = client.chat.completions.create(model="gpt-6-luna", messages=MESSAGES)
report["chat"] = chat.model_dump()
report["completion"] = client.completions.create(
    model="meta-llama/llama-2-13b", prompt="Say this is", logprobs=2, echo=True
).model_dump()

scored = client.completions.create(model="meta-llama/llama-2-13b", prompt="Say this is", echo=True, logprobs=1, max_tokens=0)
report["scored"] = [scored.choices[0].text, scored.choices[0].logprobs.token_logprobs, scored.usage.completion_tokens]

report["strict_chat"] = len(strict.chat.completions.create(model=["gpt-6-luna", "gpt-6-sol"], messages=MESSAGES).choices)
report["strict_text"] = len(
    strict.completions.create(model=["meta-llama/llama-2-13b", "gpt-6-sol"], prompt="Hi", max_tokens=4, n=2).choices
)
report["strict_models"] = len(strict.models.list().data)
report["strict_stream"] = sum(1 for _ in strict.chat.completions.create(model="gpt-6-luna", messages=MESSAGES, stream=True))

stream = client.chat.completions.create(
    model=["gpt-6-luna", "gpt-6-sol"], messages=MESSAGES, stream=True, stream_options={"include_usage": True}
)
texts, usage = {}, None
for chunk in stream:
    for choice in chunk.choices:
        texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    usage = chunk.usage or usage
report["stream"] = {"texts": texts, "tokens": usage.total_tokens}

tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
sent = client.chat.completions.create(
    model="echo", messages=MESSAGES, tools=tools, response_format={"type": "json_object"}, max_completion_tokens=9
)
report["passed_on"] = json.loads(sent.choices[0].message.content)

raw = client.chat.completions.with_raw_response.create(model="gpt-6-luna", messages=MESSAGES)
report["raw"] = [raw.status_code, raw.headers.get("x-request-id"), raw.parse().choices[0].message.role]

response = client.responses.create(model="gpt-6-luna", instructions="Talk like a pirate.", input=MESSAGES)
report["response"] = [response.status, response.output_text, response.usage.total_tokens]
plain = strict.responses.create(model=["llama-2-7b-chat", "codellama/codellama-13b-instruct"], input="Hi", max_output_tokens=4)
report["strict_response"] = [len(plain.output), plain.usage.output_tokens_details.reasoning_tokens]
report["unknown_parts"] = [response.usage.input_tokens_details, response.usage.output_tokens_details]
tool = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": True}
sent = client.responses.create(model="echo", input="Hi", tools=[tool], max_output_tokens=9)
report["response_passed_on"] = json.loads(sent.output_text)
vectors = client.embeddings.create(model="local/ngram-5", input=["The return statement", "A class"])
report["embeddings"] = [len(vector.embedding) for vector in vectors.data]
with client.responses.stream(model="gpt-6-luna", input="Hi") as events:
    report["response_events"] = sorted({event.type for event in events})
    report["response_streamed"] = events.get_final_response().output_text


async def in_the_background():
    async with AsyncOpenAI(base_url=URL, api_key=KEY) as background:
        pieces = []
        async for chunk in await background.completions.create(
            model="meta-llama/llama-2-13b", prompt="Hi", max_tokens=5, stream=True
        ):
            pieces.append(chunk.choices[0].text)
        return "".join(pieces)


report["async"] = asyncio.run(in_the_background())


def raised(**given):
    try:
        client.chat.completions.create(messages=MESSAGES, **given)
    except openai.APIStatusError as error:
        return [type(error).__name__, error.code, error.param, bool(error.request_id)]
    return None


report["errors"] = {
    "400": raised(model="gpt-6-luna", temperature=7),
    "404": raised(model="gtp-6-luna"),
    "429": raised(model="always-429"),
    "502": raised(model="always-500"),
}
client = OpenAI(base_url=URL, api_key="wrong")
report["errors"]["401"] = raised(model="gpt-6-luna")
partial = OpenAI(base_url=URL, api_key=KEY).chat.completions.create(model=["gpt-6-luna", "always-500"], messages=MESSAGES)
report["partial"] = [(choice.finish_reason, choice.error and choice.error["code"]) for choice in partial.choices]

azure = AzureOpenAI(azure_endpoint=os.environ["FANOUT_URL"], api_key=KEY, api_version="2024-10-21")
chat = azure.chat.completions.create(model="gpt-6-luna", messages=MESSAGES)
streamed = azure.chat.completions.create(model="llama-2-7b-chat", messages=MESSAGES, max_tokens=4, seed=1, stream=True)
text = azure.completions.create(model="meta-llama/llama-2-13b", prompt="Say this is", max_tokens=4, echo=True)
bound = AzureOpenAI(
    azure_endpoint=os.environ["FANOUT_URL"], azure_deployment="gpt-6-sol", api_key=KEY, api_version="2024-10-21"
)
report["azure"] = {
    "chat": [chat.model, chat.choices[0].message.content],
    "streamed": sum(1 for _ in streamed),
    "text": text.choices[0].text,
    "vectors": len(azure.embeddings.create(model="local/ngram-5", input="Hi").data[0].embedding),
    "models": len(azure.models.list().data),
    "model": azure.models.retrieve("gpt-6-luna").id,
    "bound": bound.chat.completions.create(model="ignored", messages=MESSAGES).model,
}
print(json.dumps(report))
