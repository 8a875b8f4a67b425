"""Decisions by a job's scores: the items that a comparison needs, and gates that a candidate passes or fails."""
