"""HTTP transport and incremental decoders shared by the adapters."""
