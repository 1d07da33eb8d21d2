"""The ``console`` blocks of a page: commands, each with the output that the page shows."""

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCS = Path(__file__).parents[1] / "docs"


def commands(page: Path) -> Iterator[tuple[list[str], str]]:
    """Arguments after ``$ malignancy`` and the output that follows, in the page's order."""
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        for part in block.split("$ malignancy ")[1:]:
            command, _, output = part.partition("\n")
            yield shlex.split(command), output


def shows(output: str, printed: str) -> bool:
    """Whether a page's output is what was printed, ``...`` standing for anything."""
    return doctest.OutputChecker().check_output(output, printed, doctest.ELLIPSIS)
