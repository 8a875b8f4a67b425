"""Answers of OpenAI's text and chat completions, with a choice for every answer."""
