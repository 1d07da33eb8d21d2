"""An Orthanc's word that a study is complete, taken from its list of changes."""

from __future__ import annotations

from typing import Any, Final

import requests

from pipeline.config.listening import OrthancSignal
from pipeline.dicomnet.audit import Audit
from pipeline.dicomnet.destinations import secret
from pipeline.dicomnet.listener_folder import ListenerFolder, uid_digest
from pipeline.dicomnet.series_store import SeriesStore
from pipeline.files import read_json, write_json

_STATE: Final = "orthanc.json"
_TIMEOUT_SECONDS: Final = 10.0
_PAGE: Final = 100


class OrthancPoll:
    """Asks for changes since the last ones seen, and marks the studies among them that have become stable.

    The quiet time goes on beside it, so that a signal that is lost costs time and nothing else.

    Args:
        signal: of the configuration.
        folder: of the listener.
        store: of its accepted objects.
        audit: of the listener.

    Raises:
        UsageError: when an environment variable with the user's name or password is missing.
    """

    def __init__(self, signal: OrthancSignal, folder: ListenerFolder, store: SeriesStore, audit: Audit) -> None:
        self._url, self._store, self._audit = signal.url.rstrip("/"), store, audit
        self._state = folder.root / _STATE
        self._session = requests.Session()
        self._session.trust_env = False
        if signal.user_env is not None:
            password = "" if signal.password_env is None else secret(signal.password_env, of="orthanc")
            self._session.auth = (secret(signal.user_env, of="orthanc"), password)
        self._last = self._read_last()
        self._reachable = True

    def step(self) -> None:
        """Look once; an Orthanc that does not answer is asked again later."""
        try:
            done = False
            while not done:
                page = self._get(f"/changes?since={self._last}&limit={_PAGE}")
                for change in page["Changes"]:
                    if change["ChangeType"] == "StableStudy":
                        self._mark(change["ID"])
                last, done = int(page["Last"]), bool(page["Done"])
                if last != self._last:
                    self._last = last
                    write_json(self._state, {"last": last})
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            if self._reachable:
                self._audit("Orthanc does not answer", reason=type(error).__name__)
            self._reachable = False
        else:
            self._reachable = True

    def _mark(self, study_id: str) -> None:
        try:
            study = self._get(f"/studies/{study_id}")
        except requests.HTTPError:  # deleted meanwhile
            return
        digest = uid_digest(str(study["MainDicomTags"]["StudyInstanceUID"]))
        if self._store.mark_complete(digest):
            self._audit("study called complete", study=digest)

    def _get(self, path: str) -> Any:
        response = self._session.get(self._url + path, timeout=_TIMEOUT_SECONDS)
        response.raise_for_status()
        return response.json()

    def _read_last(self) -> int:
        try:
            value = read_json(self._state)
        except (OSError, ValueError):
            return 0  # from the beginning: studies that are done with are not marked again
        return int(value["last"]) if isinstance(value, dict) and isinstance(value.get("last"), int) else 0
