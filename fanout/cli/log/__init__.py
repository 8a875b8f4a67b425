"""`fanout log`: the questions of this machine, and their answers."""
