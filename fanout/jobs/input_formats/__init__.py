"""Formats of a job's input: JSONL, CSV, TSV and Parquet, each as a generator of rows."""
