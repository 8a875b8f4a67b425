"""Inspect's default provider `openai/`, unmodified: an evaluation of three samples, streamed and with a tool."""

import json
import os
import tempfile

os.environ |= {"OPENAI_BASE_URL": os.environ["FANOUT_URL"] + "/v1", "OPENAI_API_KEY": os.environ["FANOUT_KEY"]}

import inspect_ai
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message, use_tools
from inspect_ai.tool import tool


@tool
def weather():
    async def execute(city: str) -> str:
        """Look up the weather.

        Args:
            city: Name of the city.
        """
        return f"sunny in {city}"

    return execute


def run(model, *, responses_api=None, **config):
    samples = [Sample(input=f"Say this is {word}", target="ok") for word in ("one", "two", "three")]
    solver = [system_message("Be brief."), use_tools(weather()), generate()]
    task = inspect_ai.Task(dataset=samples, solver=solver, scorer=includes())
    args = {} if responses_api is None else {"responses_api": responses_api}
    with tempfile.TemporaryDirectory() as folder:
        (log,) = inspect_ai.eval(
            task,
            model=f"openai/{model}",
            model_args=args,
            log_dir=folder,
            display="none",
            **config,
        )
        usage = log.stats.model_usage[f"openai/{model}"]
        return {
            "status": log.status,
            "error": log.error and log.error.message,
            "score": log.results.scores[0].metrics["accuracy"].value if log.results else None,
            "texts": [sample.output.completion for sample in log.samples or ()],
            "stops": [sample.output.stop_reason for sample in log.samples or ()],
            "tokens": [usage.input_tokens, usage.output_tokens, usage.reasoning_tokens],
        }


report = {"default": run("gpt-6-luna"), "responses": run("llama-2-7b-chat", responses_api=True, max_tokens=8)}
print(json.dumps(report))
