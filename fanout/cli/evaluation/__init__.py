"""Evaluation of jobs, where they are kept: scores and reports."""
