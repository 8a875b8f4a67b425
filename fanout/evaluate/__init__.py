"""Evaluation: scores, judges, labels and votes, statistics, and the report that states which model is better."""
