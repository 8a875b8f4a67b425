"""Batch jobs: every row of an input to every model, through the dispatcher into the store."""
