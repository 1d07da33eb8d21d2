"""Send a result to one destination, and interpret its answer; success needs its confirmation of every object."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.filereader import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from pipeline.config.listening import CStore, Retry, Stow
from pipeline.dicomnet.listening.tls import client_context
from pipeline.errors import UsageError
from pipeline.imaging.dicom.file import quiet

_WARNINGS: Final = frozenset({0xB000, 0xB006, 0xB007})  # stored, with coercion or warnings
_DUPLICATE: Final = 0x0111  # it is there already
_UNSUPPORTED: Final = frozenset({0x0122, 0x0124, 0x0106, 0x0115, 0x0117})
_REFUSING_HTTP: Final = frozenset({400, 406, 409, 413, 415, 422})


@dataclass(frozen=True)
class Answer:
    """Outcome of an attempt to send a result.

    Attributes:
        outcome: ``sent`` (the destination has every object), ``refused`` (it will not take one) or
            ``unreachable`` (anything else: what it has is unknown, so the result is sent again).
        reason: a status or an error, without data of the objects.
    """

    outcome: Literal["sent", "refused", "unreachable"]
    reason: str = ""


class Sender(Protocol):
    """One destination."""

    def send(self, paths: Sequence[Path]) -> Answer:
        """Send the objects of one result."""
        ...


def sender_of(destination: CStore | Stow, retry: Retry, *, own_title: str) -> Sender:
    """The sender for a destination of the configuration.

    Args:
        destination: of the configuration.
        retry: for its timeout.
        own_title: the AE title that associations are requested with.

    Raises:
        UsageError: when an environment variable with a user's name, password or token is missing, or TLS cannot be set
            up.
    """
    if isinstance(destination, CStore):
        return StoreSender(destination, retry.timeout_seconds, own_title)
    return StowSender(destination, retry.timeout_seconds)


def secret(variable: str, *, of: str) -> str:
    """The value of an environment variable.

    Args:
        variable: its name.
        of: what it is for, for the error.

    Raises:
        UsageError: when it is not set.
    """
    value = os.environ.get(variable, "")
    if not value:
        raise UsageError(f"{of}: environment variable {variable} is not set; export it before starting")
    return value


class StoreSender:
    """Sends by C-STORE.

    Args:
        destination: of the configuration.
        timeout_seconds: for the connection and for each answer.
        own_title: the AE title that associations are requested with.
    """

    def __init__(self, destination: CStore, timeout_seconds: float, own_title: str) -> None:
        self._destination, self._timeout, self._own_title = destination, timeout_seconds, own_title
        self._tls = None if destination.tls is None else (client_context(destination.tls), destination.address)

    def send(self, paths: Sequence[Path]) -> Answer:
        """Send the objects in one association."""
        with quiet():
            objects = [dcmread(path) for path in paths]
        application = AE(ae_title=self._own_title)
        application.connection_timeout = application.acse_timeout = self._timeout
        application.dimse_timeout = application.network_timeout = self._timeout
        for sop_class in sorted({str(data.SOPClassUID) for data in objects}):
            application.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        association = application.associate(
            self._destination.address, self._destination.port, ae_title=self._destination.ae_title, tls_args=self._tls
        )
        if not association.is_established:
            return Answer("unreachable", "association refused" if association.is_rejected else "no association")
        try:
            return self._store(association, objects)
        finally:
            if association.is_established:
                association.release()

    def _store(self, association: Association, objects: Sequence[Dataset]) -> Answer:
        for data in objects:
            try:
                response = association.send_c_store(data)
            except ValueError:  # the destination accepted no presentation context for its class
                return Answer("refused", "no presentation context accepted")
            except RuntimeError:  # the association ended before the object was sent
                return Answer("unreachable", "association ended")
            if "Status" not in response:
                return Answer("unreachable", "no answer")
            answer = judge_status(response.Status)
            if answer.outcome != "sent":
                return answer
        return Answer("sent")


def judge_status(status: int) -> Answer:
    """Interpret a C-STORE status, or the reason of a failure in STOW-RS.

    Example:
        >>> judge_status(0xA700)
        Answer(outcome='unreachable', reason='status A700')

    Source: PS3.4, table B.2-1; PS3.7, annex C.
    """
    if status in (0x0000, _DUPLICATE) or status in _WARNINGS:
        return Answer("sent")
    is_refusal = status >> 8 == 0xA9 or status >> 12 == 0xC or status in _UNSUPPORTED
    return Answer("refused" if is_refusal else "unreachable", f"status {status:04X}")


class StowSender:
    """Sends by STOW-RS.

    Args:
        destination: of the configuration.
        timeout_seconds: for the connection and for each answer.
    """

    def __init__(self, destination: Stow, timeout_seconds: float) -> None:
        session = requests.Session()
        session.trust_env = False  # no proxy, and no password of ~/.netrc, that the configuration does not name
        if destination.ca is not None:
            if not destination.ca.is_file():
                raise UsageError(f"{destination.name}: ca {destination.ca}: no such file; name a PEM file")
            session.verify = str(destination.ca)
        headers = {}
        if destination.token_env is not None:
            headers["Authorization"] = f"Bearer {secret(destination.token_env, of=destination.name)}"
        elif destination.user_env is not None:
            password = "" if destination.password_env is None else secret(destination.password_env, of=destination.name)
            session.auth = (secret(destination.user_env, of=destination.name), password)
        self._client = DICOMwebClient(destination.url, session=session, headers=headers, timeout=timeout_seconds)
        self._client.set_http_retry_params(retry=False)

    def send(self, paths: Sequence[Path]) -> Answer:
        """Send the objects in one request."""
        with quiet():
            objects = [dcmread(path) for path in paths]
            try:
                response = self._client.store_instances(objects)
            except requests.HTTPError as error:
                status = 0 if error.response is None else error.response.status_code
                return Answer("refused" if status in _REFUSING_HTTP else "unreachable", f"HTTP {status}")
            except (requests.RequestException, ValueError, KeyError) as error:
                return Answer("unreachable", type(error).__name__)
            return judge_response(response, objects)


def judge_response(response: Dataset, objects: Sequence[Dataset]) -> Answer:
    """Interpret the answer of a STOW-RS request: every object must be named as stored.

    Source: PS3.18, section 10.5.3.
    """
    for item in response.get("FailedSOPSequence") or ():
        answer = judge_status(int(item.get("FailureReason", 0x0110)))
        if answer.outcome != "sent":
            return answer
    stored = {str(item.ReferencedSOPInstanceUID) for item in response.get("ReferencedSOPSequence") or ()}
    failed = {str(item.ReferencedSOPInstanceUID) for item in response.get("FailedSOPSequence") or ()}
    missing = {str(data.SOPInstanceUID) for data in objects} - stored - failed
    return Answer("unreachable", f"{len(missing)} objects not named in the answer") if missing else Answer("sent")
