"""Patient ids of DICOM headers as salted hashes: the same person has the same pseudonym in every table of one user.

The salt is made once and kept outside the data, so that a table that is passed on cannot be traced back to its
patients, and a patient has the same pseudonym in later tables.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.files import sha256_bytes

VARIABLE = "MALIGNANCY_PATIENT_SALT"


def pseudonym(patient: str, salt: str) -> str:
    """12 hex digits in place of an id."""
    return sha256_bytes(f"{salt}\0{patient}".encode())[:12]


def patient_salt() -> tuple[str, str]:
    """The user's salt, made when there is none, and where it is kept.

    Raises:
        UsageError: when it cannot be stored.
    """
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE], f"${VARIABLE}"
    home = os.environ.get("XDG_DATA_HOME")
    path = (Path(home) if home else Path.home() / ".local" / "share") / "malignancy" / "patient-salt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as handle:
                handle.write(secrets.token_hex(16))
        except FileExistsError:
            pass
        salt = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UsageError(
            f"{path}: the salt of patient ids cannot be kept there ({error.strerror}); set {VARIABLE} to a secret "
            "text, or keep the ids as they are: --keep-ids"
        ) from None
    if not salt:
        raise UsageError(f"{path}: the salt of patient ids is empty; remove the file, or set {VARIABLE}")
    return salt, str(path)
