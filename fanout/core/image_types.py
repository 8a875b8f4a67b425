"""Media types of the images that models take."""

from __future__ import annotations

IMAGE_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}
"""By the first bytes of a file."""


def find_image_type(content: bytes) -> str | None:
    """Return the media type of an image by its first bytes; `None`: it is none that models take."""
    return next((media_type for start, media_type in IMAGE_TYPES.items() if content.startswith(start)), None)
