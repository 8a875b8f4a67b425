"""OpenAI's completions and chat completions, with a list-valued `model`."""
