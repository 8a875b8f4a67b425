"""The `fanout` command."""
