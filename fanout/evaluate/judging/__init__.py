"""Judging by a model of the catalogue: a job of its own, whose rows show the answers of another job."""
