"""Embeddings in each format that has them. Each asks for all texts of a call at once, and keeps vectors as 32-bit floats."""
