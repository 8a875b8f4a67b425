"""Batch jobs: rows × models through the Dispatcher into the store."""
