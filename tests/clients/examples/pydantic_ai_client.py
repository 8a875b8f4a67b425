"""Pydantic AI over OpenAI's client: its chat model and its model of responses, whole, streamed, and with tools."""

import asyncio
import json
import os

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=os.environ["FANOUT_URL"] + "/v1", api_key=os.environ["FANOUT_KEY"])
report = {}


async def main():
    for name, model in (
        ("chat", OpenAIChatModel("gpt-6-luna", provider=provider)),
        ("responses", OpenAIResponsesModel("gpt-6-luna", provider=provider)),
    ):
        agent = Agent(model, instructions="Be brief.", model_settings={"max_tokens": 16})

        @agent.tool_plain
        def weather(city: str) -> str:
            """Look up the weather."""
            return f"sunny in {city}"

        result = await agent.run("Where does 'hello world' come from?")
        report[name] = [result.output, result.usage.input_tokens, result.usage.output_tokens]
        again = await agent.run("And then?", message_history=result.all_messages())
        report[f"{name}_again"] = again.output
        async with agent.run_stream("Hi") as stream:
            report[f"{name}_stream"] = "".join([piece async for piece in stream.stream_text(delta=True)])


asyncio.run(main())
print(json.dumps(report))
