"""An Orthanc as a source: its notice that a study is complete, and optionally the study itself."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from typing import Any, Final

import requests

from pipeline.config.listening import ListenConfig
from pipeline.dicomnet.listening.audit import Audit
from pipeline.dicomnet.listening.destinations import secret
from pipeline.dicomnet.listening.listener_folder import ListenerFolder, SeriesKey, uid_digest
from pipeline.dicomnet.listening.reception import read_object_identity, refusal_reason, store_object
from pipeline.dicomnet.listening.series_store import SeriesStore
from pipeline.dicomnet.listening.space import Space
from pipeline.errors import CaseError
from pipeline.files import read_json, write_json

_STATE: Final = "orthanc.json"
_TIMEOUT_SECONDS: Final = 30.0
_PAGE: Final = 100
_BLOCK: Final = 1 << 20


class OrthancSource:
    """Asks for changes since the last ones that were handled, and handles the studies that became stable.

    Its position is recorded after a study is received and synchronised, so that a kill repeats work and skips none. The
    quiet time applies as well.

    Args:
        config: of the listener, with an Orthanc.
        folder: of the listener.
        store: of its accepted objects.
        audit: of the listener.

    Raises:
        UsageError: when an environment variable with the user's name or password is missing.
    """

    def __init__(self, config: ListenConfig, folder: ListenerFolder, store: SeriesStore, audit: Audit) -> None:
        source = config.orthanc
        assert source is not None
        self._url, self._pull = source.url.rstrip("/"), source.pull
        self._folder, self._store, self._audit = folder, store, audit
        self._state = folder.root / _STATE
        self._space = Space(config.folder, config.limits)
        self._most_bytes = config.limits.object_mb * 10**6
        self._session = requests.Session()
        self._session.trust_env = False
        if source.user_env is not None:
            password = "" if source.password_env is None else secret(source.password_env, of="orthanc")
            self._session.auth = (secret(source.user_env, of="orthanc"), password)
        self._last = self._read_last()
        self._reachable = True

    def step(self) -> None:
        """Check once; an Orthanc that does not answer, or a full disk, is retried later."""
        try:
            done = False
            while not done:
                page = self._get(f"/changes?since={self._last}&limit={_PAGE}")
                for change in page["Changes"]:
                    if change["ChangeType"] == "StableStudy":
                        self._stable(change["ID"])
                last, done = int(page["Last"]), bool(page["Done"])
                if last != self._last:
                    write_json(self._state, {"last": last})
                    self._last = last
        except (requests.RequestException, OSError, ValueError, KeyError, TypeError) as error:
            if self._reachable:
                self._audit("Orthanc not read", reason=type(error).__name__)
            self._reachable = False
        else:
            self._reachable = True

    def _stable(self, study_id: str) -> None:
        try:
            study = self._get(f"/studies/{study_id}")
            uid = str(study["MainDicomTags"]["StudyInstanceUID"])
            if self._pull:
                self._fetch(uid_digest(uid), self._get(f"/studies/{study_id}/series"))
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != requests.codes.not_found:
                raise
            return  # deleted meanwhile
        if self._store.mark_complete(uid_digest(uid)):
            self._audit("study called complete", study=uid_digest(uid))

    def _fetch(self, study: str, series: list[Any]) -> None:
        """Fetch the objects of a study that are not here yet."""
        outcomes: Counter[str] = Counter()
        for item in series:
            key = SeriesKey(study, uid_digest(str(item["MainDicomTags"]["SeriesInstanceUID"])))
            for instance in self._get(f"/series/{item['ID']}/instances"):
                name = f"{uid_digest(str(instance['MainDicomTags']['SOPInstanceUID']))}.dcm"
                if not (self._folder.series_folder(key) / name).exists():
                    outcomes[self._fetch_object(str(instance["ID"]))] += 1
        if outcomes:
            details = {outcome.replace(" ", "_"): count for outcome, count in sorted(outcomes.items())}
            self._audit("study fetched", study=study, **details)

    def _fetch_object(self, instance: str) -> str:
        problem = self._space.why_full()
        if problem is not None:
            raise OSError(problem)
        path = self._folder.receiving / f"{uuid.uuid4().hex}.part"
        url = f"{self._url}/instances/{instance}/file"
        try:
            with (
                self._session.get(url, timeout=_TIMEOUT_SECONDS, stream=True) as got,
                open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as handle,
            ):
                got.raise_for_status()
                for block in got.iter_content(_BLOCK):
                    if handle.tell() + len(block) > self._most_bytes:
                        return "refused"
                    handle.write(block)
            identity = read_object_identity(path)
            return "refused" if identity is None else store_object(self._folder, path, identity).value
        except CaseError as error:
            self._audit("object refused", reason=refusal_reason(error))
            return "refused"
        finally:
            path.unlink(missing_ok=True)

    def _get(self, path: str) -> Any:
        response = self._session.get(self._url + path, timeout=_TIMEOUT_SECONDS)
        response.raise_for_status()
        return response.json()

    def _read_last(self) -> int:
        try:
            value = read_json(self._state)
        except (OSError, ValueError):
            return 0  # from the beginning: objects that are here are not fetched again
        return int(value["last"]) if isinstance(value, dict) and isinstance(value.get("last"), int) else 0
