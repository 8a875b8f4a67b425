"""`fanout init`: set up providers and their keys."""
