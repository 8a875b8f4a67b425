"""`fanout ask`: one prompt to many models."""
