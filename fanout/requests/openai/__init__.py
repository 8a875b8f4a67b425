"""Requests of OpenAI's text and chat completions, with a list-valued `model`."""
