"""Exceptions of a tracking store that cannot be used, and their reason in one line."""

from __future__ import annotations

import errno
import re
import sqlite3
import sys
from collections.abc import Iterator

from pipeline.errors import UnfinishedError
from pipeline.redaction import redact

_LIMIT = 320  # characters of a reason: the rest of MLflow's messages is advice and addresses
_NOISE = re.compile(r"\s*(\[SQL: .*|\(Background on this error.*|Response body: ''\.?)", re.DOTALL)
_DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}


class StoreError(UnfinishedError):
    """The tracking store cannot be used now; a job's own files are not affected."""


def store_faults() -> tuple[type[Exception], ...]:
    """Exceptions that MLflow raises when its store is unreachable, locked, full or damaged."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    buckets = (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("boto3.exceptions", "Boto3Error"),
    )
    loaded = (getattr(sys.modules.get(module), name, None) for module, name in buckets)  # artifacts may lie in S3
    known = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError)  # ImportError: no driver
    return *known, *(error_class for error_class in loaded if error_class is not None)


def store_reason(error: BaseException, *, otherwise: str = "") -> str:
    """Why a store cannot be used, and what to do about it (or ``otherwise``): one line, without secrets."""
    causes = list(_causes(error))
    # The database's or the network's own words, where MLflow wraps them.
    inner = [cause for cause in causes if isinstance(cause, OSError | sqlite3.Error) and str(cause)]
    original = getattr(error, "orig", None)
    text = _NOISE.sub("", str(original or (inner[-1] if inner else error)))
    text = redact(" ".join(text.split())).removesuffix(".") or type(error).__name__
    if any(type(cause).__name__ == "ProxyError" for cause in causes):
        text = f"the proxy: {text}"
    if len(text) > _LIMIT:
        text = text[:_LIMIT].rsplit(" ", 1)[0] + " …"
    remedy = _remedy(error, text) or otherwise
    return f"{text}; {remedy}" if remedy else text


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to an error, the nearest first."""
    causes = [error]
    while (cause := _cause(causes[-1])) is not None and cause not in causes:
        causes.append(cause)
        yield cause


def _cause(error: BaseException) -> BaseException | None:
    """The cause of an error; an exception that was only being handled when it was raised is not its cause."""
    original = getattr(error, "orig", None) or error.__cause__
    if isinstance(original, BaseException):
        return original
    network = (
        type(candidate).__module__.startswith(("requests.", "urllib3.")) for candidate in (error, error.__context__)
    )
    return error.__context__ if any(network) else None


def _remedy(error: BaseException, text: str) -> str:
    if isinstance(error, ImportError):
        name = error.name or "the driver"
        return f"the database driver is missing: pip install {_DRIVERS.get(name, name)}"
    lowered = text.lower()
    if "locked" in lowered:
        return "another program holds the database: wait for it, or end it"
    if "readonly" in lowered or "read-only" in lowered or "permission denied" in lowered:
        return "make the file and its folder writable"
    if "full" in lowered or "no space" in lowered or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "free some space"
    if "not a database" in lowered or "malformed" in lowered:
        return "restore the file, or name a new one in tracking.uri"
    if "proxy" in lowered:
        return "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    if "401" in lowered or "403" in lowered:
        return "check MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN"
    return ""
