"""Results as JSON-ready values, shared by server and command line."""
