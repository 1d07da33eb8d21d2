"""UIDs that depend on content alone, so that an object that is sent twice is the same object to the receiver."""

from __future__ import annotations

import uuid

from pipeline.files import sha256_json


def stable_uid(*parts: object) -> str:
    """A UID under 2.25 made from JSON values; the same values give the same UID, on any machine.

    Source: PS3.5, annex B.2 (UIDs derived from a UUID).

    Example:
        >>> stable_uid("report", "1.2.3") == stable_uid("report", "1.2.3")
        True
    """
    digest = bytes.fromhex(sha256_json(list(parts)))
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"
