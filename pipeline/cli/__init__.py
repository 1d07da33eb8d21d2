"""The command ``malignancy``: parse, call a job, exit code. Jobs are imported when they are called."""

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from pipeline.imaging.lean_imports import defer_compiler, install

if TYPE_CHECKING:
    from pipeline.cli.command_line import app, run

__all__ = ["app", "main", "run"]


def main() -> None:
    """Run the command; 0 done, 1 done with rejected cases, 2 wrong usage or table, 3 could not finish."""
    install()
    if sys.argv[1:2] == ["check"]:  # which imports torch for preprocessing alone
        defer_compiler()
    if sys.argv[1:2] in (["score"], ["find"]):
        from pipeline.scoring.engines.worker_server import start_server_for

        with contextlib.suppress(OSError):  # said when a worker is needed
            start_server_for(sys.argv[1:])
    from pipeline.cli.command_line import run_and_exit

    run_and_exit(sys.argv[1:])


def __getattr__(name: str) -> Any:
    """The application and ``run``, with the packages that parse a command line, when they are asked for."""
    if name in __all__:
        from pipeline.cli import command_line

        return getattr(command_line, name)
    raise AttributeError(f"module 'pipeline.cli' has no attribute {name!r}")
