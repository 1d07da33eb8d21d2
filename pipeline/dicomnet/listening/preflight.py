"""Check the secrets, certificates and folders that a configuration names before anything is made."""

from __future__ import annotations

from pipeline.config.listening import ListenConfig
from pipeline.dicomnet.listening.destinations import secret, sender_of
from pipeline.dicomnet.listening.tls import server_context
from pipeline.errors import UsageError


def require_usable(config: ListenConfig) -> None:
    """Check secrets, certificates and folders.

    Raises:
        UsageError: naming the first that is missing.
    """
    for destination in config.destinations:
        sender_of(destination, config.retry, own_title=config.ae_title)
    if config.tls is not None:
        server_context(config.tls)
    if config.orthanc is not None:
        for variable in (config.orthanc.user_env, config.orthanc.password_env):
            if variable is not None:
                secret(variable, of="orthanc")
    if config.watch is not None and not config.watch.folder.is_dir():
        raise UsageError(f"watch.folder {config.watch.folder}: is no folder; make it, or correct the path")
