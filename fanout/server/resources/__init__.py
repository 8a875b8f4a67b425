"""Endpoints of resources: models, providers, usage, files, batches, jobs."""
