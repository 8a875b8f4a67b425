"""The OpenAPI document and its HTML reference."""
