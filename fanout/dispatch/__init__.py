"""Planning, dispatching, retrying and pricing of upstream calls."""
