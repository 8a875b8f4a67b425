"""Configuration: the environment, providers.json and the catalogue of models."""
