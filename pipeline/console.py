r"""Printing to the terminal: text without control characters, whatever names of files and header values hold.

An escape sequence in a file's name could rename the window, hide a line or type a command; here it is shown as it is
written in Python (``\x1b``). A stream that cannot show a character shows its code likewise, instead of failing.
"""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.table import Table

_KEPT = "\n\t"
# Characters that turn the direction of what follows, or begin a line for some programs; the other controls are "Cc".
_TURNING = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
_CONTROLS = [chr(code) for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and chr(code) not in _KEPT]
_ESCAPES = {
    ord(character): f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"
    for character in (*_CONTROLS, *_TURNING)
}


def printable(text: str) -> str:
    """Text in which control characters, but for line ends and tabs, are written as their codes."""
    return text.translate(_ESCAPES)


def one_line(text: object) -> str:
    """Text that is printed as one line: a line end in a file's name must not begin a line of its own."""
    return str(text).replace("\n", "\\n")


def table_text(table: Table, *, width: int) -> str:
    """A table as plain text; ``[red]`` in a column's name is a name, and no colour."""
    from rich.console import Console

    text = io.StringIO()
    console = Console(
        file=text, width=width, markup=False, emoji=False, highlight=False, no_color=True, force_terminal=False
    )
    console.print(table)
    return text.getvalue().rstrip()


class PlainStream:
    """A text stream that shows what is printed as text.

    Progress bars are drawn past it (``rich_proxied_file`` is rich's name for what it writes to); they show nothing
    that comes from a file.

    Args:
        stream: what is written to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write text; what the stream's encoding lacks is written as its code."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        shown = printable(text)
        try:
            self.rich_proxied_file.write(shown)
        except UnicodeEncodeError:
            encoding = self.rich_proxied_file.encoding or "ascii"
            self.rich_proxied_file.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Write each text."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """Print to stdout and stderr through a `PlainStream` while the block runs."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        stream if stream is None or isinstance(stream, PlainStream) else cast("TextIO", PlainStream(stream))
        for stream in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def print_summary(text: str) -> None:
    """Print; ignore a closed stdout, because what the text is about is on disk."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
