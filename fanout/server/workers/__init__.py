"""Several processes of one server: their supervisor, and what they do for each other."""
