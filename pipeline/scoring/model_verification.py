"""Verify that a model directory is unchanged since training, from its bytes and digests alone; no torch."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ModelError
from pipeline.files import sha256_file
from pipeline.scoring.model_description import JSON_NAME, ModelDescription, model_digest, read_description


def verify_model(folder: Path) -> ModelDescription:
    """Read ``model.json`` and verify every digest; whether its network can be built is not checked here.

    Raises:
        ModelError: when the directory is missing, damaged or of another schema.
    """
    description = read_description(folder)
    require_model_digest(folder, description)
    for member in description.members:
        require_weights(folder / Path(member.weights).name, member.weights_sha256)
    return description


def require_weights(path: Path, sha256: str) -> None:
    """Refuse a weights file whose bytes have changed since training.

    Raises:
        ModelError: when it is missing or its digest differs.
    """
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise unreadable_weights(path, error) from None
    if digest != sha256:
        raise changed_weights(path)


def require_model_digest(folder: Path, description: ModelDescription) -> None:
    """Refuse a ``model.json`` that was edited.

    Raises:
        ModelError: when its digest does not match its content.
    """
    # As written, because keys that a later version of this program adds are not covered.
    expected = model_digest(description.model_dump(mode="json", exclude_unset=True))
    if expected != description.digests.model:
        raise ModelError(
            f"{folder / JSON_NAME}: was edited after training (its model digest does not fit); train it again"
        )


def unreadable_weights(path: Path, error: OSError) -> ModelError:
    """The error for a weights file that cannot be read."""
    return ModelError(f"{path}: cannot be read ({error.strerror}); copy the whole model directory")


def changed_weights(path: Path) -> ModelError:
    """The error for a weights file whose bytes have changed."""
    return ModelError(
        f"{path}: its bytes are not those that were trained (SHA-256 differs); copy the model directory again"
    )
