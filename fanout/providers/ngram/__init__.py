"""The embedded n-gram language models."""
