"""`POST /v1/completion`, Fanout's main endpoint, in the format of Thiggle: one prompt to many models."""
