"""Remove passwords and signatures of URLs from texts that are printed or written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

REDACTED = "***"
# A password may hold an "@" itself: what stands before the last one of the host is left out. A URL that was taken for
# a path has one slash; there a colon tells a password from an alias, as in models:/NAME@champion.
_USER = re.compile(r"(?<=://)[^/\s'\"]*@|(?<=:/)[^/\s'\":]*:[^/\s'\"]*@")
_SECRET = re.compile(
    r"(?i)([?&;][\w.-]*(?:password|passwd|pwd|token|secret|signature|credential|accesskeyid|access_key|sig)=)[^&;\s'\"#]+"
)


def redact(text: str) -> str:
    """A text without the user and password of URLs and without the secrets among their parameters.

    ``postgresql://me:pass@host/db?sslpassword=x`` becomes ``postgresql://***@host/db?sslpassword=***``.
    """
    return _SECRET.sub(rf"\1{REDACTED}", _USER.sub(f"{REDACTED}@", text))


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Plain JSON values with every text in them changed; names stay."""
    if isinstance(value, dict):
        return {name: map_texts(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [map_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
