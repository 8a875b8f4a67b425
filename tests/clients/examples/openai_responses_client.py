"""OpenAI's own examples of its Responses API: text, images, streams, structured output, tools, conversations that go on."""

import asyncio
import base64
import json
import os

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

URL, KEY = os.environ["FANOUT_URL"] + "/v1", os.environ["FANOUT_KEY"]
client = OpenAI(base_url=URL, api_key=KEY)
report = {}

response = client.responses.create(
    model="gpt-6-luna",
    instructions="You are a coding assistant that talks like a pirate.",
    input="How do I check if a Python object is an instance of a class?",
)
report["text"] = [response.output_text, response.status, response.error]

pixel = base64.b64encode(b"\x89PNG\r\n").decode()
seen = client.responses.create(
    model="echo",
    input=[
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is in this image?"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{pixel}"},
            ],
        }
    ],
)
report["image"] = json.loads(seen.output_text)["messages"][0]["content"]

stream = client.responses.create(model="gpt-6-luna", input="Write a one-sentence bedtime story about a unicorn.", stream=True)
report["stream"] = [event.type for event in stream]


async def in_the_background():
    async with AsyncOpenAI(base_url=URL, api_key=KEY) as background:
        text = ""
        async for event in await background.responses.create(model="gpt-6-luna", input="Hi", stream=True):
            text += event.delta if event.type == "response.output_text.delta" else ""
        return text


report["async"] = asyncio.run(in_the_background())


class Step(BaseModel):
    explanation: str
    output: str


class MathResponse(BaseModel):
    steps: list[Step]
    final_answer: str


parsed = client.responses.parse(input="solve 8x + 31 = 2", model="structured", text_format=MathResponse)
report["parsed"] = parsed.output_parsed.model_dump()
with client.responses.stream(input="solve 8x + 31 = 2", model="structured", text_format=MathResponse) as events:
    for event in events:
        if event.type == "response.output_text.done":
            report["parsed_event"] = event.parsed.final_answer
    report["parsed_stream"] = events.get_final_response().output_parsed.final_answer
sent = client.responses.parse(input="solve", model="echo", text={"format": {"type": "text"}})
report["format_sent"] = json.loads(sent.output_text)


class GetWeather(BaseModel):
    """Look up the weather."""

    city: str


tools = [openai.pydantic_function_tool(GetWeather)["function"] | {"type": "function"}]
called = client.responses.create(model="echo", input="Weather in Paris?", tools=tools, tool_choice="required")
report["tools"] = json.loads(called.output_text)["tools"][0]["function"]["name"]

first = client.responses.create(model="echo", input="tell me a joke")
second = client.responses.create(
    model="echo", previous_response_id=first.id, input=[{"role": "user", "content": "explain why this is funny."}]
)
report["went_on"] = [message["role"] for message in json.loads(second.output_text)["messages"]]
report["retrieved"] = [client.responses.retrieve(first.id).output_text == first.output_text, second.previous_response_id]
report["first"] = first.id
try:
    client.responses.retrieve("resp_nobody")
except openai.NotFoundError as error:
    report["missing"] = error.code

raw = client.responses.with_raw_response.create(model="gpt-6-luna", input="Hi")
report["request_id"] = bool(raw.headers["x-request-id"]) and raw.parse().output_text
print(json.dumps(report))
