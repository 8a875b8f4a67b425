"""Compare two models on a handful of prompts: text side by side, then tokens, time and cost of each.

usage: python examples/compare_models.py [MODEL MODEL ...]      by default two embedded models, which need no key
"""

import asyncio
import sys

import fanout

PROMPTS = ("The return statement", "A class", "The with statement")


async def main(models: list[str]) -> None:
    """Send every prompt to every model, over shared connections and limits."""
    output_tokens, seconds, cost_usd = dict.fromkeys(models, 0), dict.fromkeys(models, 0.0), dict.fromkeys(models, 0.0)
    async with fanout.open_dispatcher(fanout.load_settings()) as dispatcher:
        for prompt in PROMPTS:
            comparison = await fanout.ask(prompt, models, max_tokens=20, seed=7, dispatcher=dispatcher)
            print(f"\n> {prompt}")
            for choice in comparison.choices:
                outcome = choice.outcome
                print(f"{choice.label:>16}: {choice.failure.message if choice.failure else choice.text.strip()}")
                if choice.failure is None and outcome.result.usage:
                    output_tokens[choice.label] += outcome.result.usage.output_tokens or 0
                seconds[choice.label] += outcome.timing.total_s
                cost_usd[choice.label] += outcome.cost.usd if outcome.cost else 0.0
    print(f"\n{'model':>16}  tokens  seconds      USD")
    for model in models:
        print(f"{model:>16}  {output_tokens[model]:6}  {seconds[model]:7.2f}  {cost_usd[model]:.5f}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["local/ngram-3", "local/ngram-5"]))
