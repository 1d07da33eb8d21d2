"""The application and its exit codes: 0 done, 1 done with rejected cases, 2 wrong usage, 3 could not finish."""

from __future__ import annotations

import errno
import socket
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer

from pipeline import __version__
from pipeline.cli import data, evaluation, listening, scoring, training
from pipeline.console import one_line, plain_output
from pipeline.errors import ConfigError, ModelError, PipelineError, TableError, UsageError
from pipeline.redaction import redact

_CTRL_C = 130  # what typer makes of a KeyboardInterrupt
_INTERRUPTED = "interrupted; what was finished before is kept"
# typer carries click inside itself from some release on; the base class is the same in both.
_CommandLineError: Any = typer.BadParameter.__mro__[1]


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"malignancy-pipeline {__version__}")
        raise typer.Exit


def malignancy(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Binary malignancy classification of medical images, with calibrated probabilities.

    Research use; not a medical device.
    """


def _application() -> typer.Typer:
    """The command with its subcommands, in the order in which ``--help`` lists them."""
    application = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    application.callback()(malignancy)
    commands = (
        data.init,
        data.demo_data,
        training.train,
        training.search,
        training.pretrain,
        evaluation.evaluate,
        scoring.score,
        scoring.report_dicom,
        scoring.find,
        scoring.serve,
        listening.listen,
        training.plan,
        training.check,
        data.audit,
        data.lesions,
        evaluation.recalibrate,
        evaluation.promote,
        evaluation.anchor,
        evaluation.rollback,
        evaluation.ui,
    )
    for command in commands:
        application.command()(command)
    application.command("config")(training.show_config)
    importers = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Turn a public dataset into a manifest.")
    importers.command("medmnist")(data.import_medmnist)
    importers.command("lidc")(data.import_lidc)
    importers.command("luna16")(data.import_luna16)
    application.add_typer(importers, name="import")
    return application


app = _application()


def run_and_exit(arguments: list[str]) -> NoReturn:
    """Run one command line and leave the process with its exit code."""
    with plain_output():
        try:
            code = run(arguments)
        except Exception:  # noqa: BLE001  # a fault of ours must not look like exit 1, "done, but some were rejected"
            print(redact(traceback.format_exc()), end="", file=sys.stderr)
            code = 3
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every foreseen error is one line on stderr."""
    with plain_output():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        code: int = app(arguments, prog_name="malignancy", standalone_mode=False) or 0
        return code if code != _CTRL_C else _fail(_INTERRUPTED, 3)
    except _CommandLineError as error:
        text = error.format_message()
        if "\n" in text:  # the help, which a command without arguments prints
            print(text, file=sys.stderr)
            return 2
        return _fail(f"{text.rstrip('.')}; `malignancy --help` lists commands and options", 2)
    except (UsageError, ModelError) as error:
        return _fail(error, 2)
    except PipelineError as error:
        return _fail(error, 3)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(_INTERRUPTED, 3)
    except FileExistsError as error:
        where = f"{error.filename}: exists already; choose another name" if error.filename else error
        return _fail(where, 2)
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return _fail(f"network: {error.strerror or error}; check the address, the network and the server", 3)
        where = error.filename or "disk"
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT):
            return _fail(f"{where}: {error.strerror}; choose another path", 2)
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check it"
        return _fail(f"{where}: {error.strerror}; {remedy} or choose another folder", 3)


def _fail(message: object, code: int) -> int:
    several = isinstance(message, TableError | ConfigError)  # a line for each fault of a table or configuration
    print(redact(f"malignancy: {message if several else one_line(message)}"), file=sys.stderr)
    return code
