"""OpenAI's wire format, and Azure's variant of it."""
