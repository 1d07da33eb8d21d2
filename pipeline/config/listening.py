"""Configuration of ``malignancy listen``: where scans come from, where results go, and what is kept how long."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from pipeline.config.detection import LEAST_REPORTED
from pipeline.config.inputs import FilePath, Name, Probability, Section

AETitle = Annotated[
    str,
    Field(
        pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$", description="1 to 16 characters of ASCII, no backslash"
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\[\]-]+$", max_length=253)]


class TLS(Section):
    """Certificates of one side of a connection, PEM files beside the configuration."""

    certificate: FilePath | None = Field(None, description="this program's certificate")
    key: FilePath | None = Field(None, description="the certificate's private key")
    ca: FilePath | None = Field(
        None, description="what the other side's certificate is checked with; of a listener, null asks for none"
    )

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together; give both or none")
        return self


class Watch(Section):
    """A folder whose DICOM files are taken in like received ones."""

    folder: FilePath = Field(description="searched with its subfolders")
    settle_seconds: PositiveFloat = Field(5.0, description="how long a file must have been still before it is read")
    remove: bool = Field(default=False, description="delete a file once it has been taken in")


class Orthanc(Section):
    """An Orthanc whose stable studies are scored at once, without waiting for the quiet time."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] = Field(description="of its REST interface")
    user_env: Variable | None = Field(None, description="environment variable that holds the user's name")
    password_env: Variable | None = Field(None, description="environment variable that holds the password")
    poll_seconds: PositiveFloat = 5.0
    pull: bool = Field(
        default=False,
        description="fetch its stable studies; none is missed however long this program is down, while what an Orthanc "
        "sends by itself is sent once",
    )


class CStore(Section):
    """A destination that takes results by C-STORE."""

    name: Name = Field(description="in file names and audit lines")
    kind: Literal["c-store"]
    address: Host
    port: Port
    ae_title: AETitle = Field(description="of the destination")
    tls: TLS | None = None


class Stow(Section):
    """A destination that takes results over HTTP, by STOW-RS."""

    name: Name = Field(description="in file names and audit lines")
    kind: Literal["stow-rs"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] = Field(
        description="of the DICOMweb service, the part before /studies, without user and password"
    )
    user_env: Variable | None = Field(None, description="environment variable that holds the user's name")
    password_env: Variable | None = Field(None, description="environment variable that holds the password")
    token_env: Variable | None = Field(None, description="environment variable that holds a bearer token")
    ca: FilePath | None = Field(None, description="PEM file that the server's certificate is checked with")


Destination = Annotated[CStore | Stow, Field(discriminator="kind")]


class Retry(Section):
    """How sending goes on after it failed; what is merely unreachable is tried for ever."""

    first_seconds: PositiveFloat = Field(2.0, description="before the second try; doubled after each further one")
    longest_seconds: PositiveFloat = Field(300.0, description="between two tries, at most")
    refusals: PositiveInt = Field(
        3, description="tries after which a result that the destination refuses goes to the folder of errors"
    )
    timeout_seconds: PositiveFloat = Field(60.0, description="for a connection, and for each answer")


class ReceptionLimits(Section):
    """What senders may use of this machine."""

    associations: Annotated[PositiveInt, Field(le=1000)] = Field(20, description="at the same time")
    idle_seconds: PositiveFloat = Field(60.0, description="after which a silent association is ended")
    association_seconds: PositiveFloat = Field(3600.0, description="after which any association is ended")
    object_mb: PositiveInt = Field(4096, description="of one received object")
    quota_gb: PositiveFloat = Field(100.0, description="of the whole folder; above it nothing is received")
    free_gb: NonNegativeFloat = Field(1.0, description="of the disk; below it nothing is received")
    retention_days: PositiveFloat = Field(
        14.0, description="that scans and sent results are kept after the last change"
    )


class ListenConfig(Section):
    """Everything that ``malignancy listen`` is told."""

    folder: FilePath = Field(description="of all that is received, made and kept; made when missing")
    ae_title: AETitle = "MALIGNANCY"
    address: Host = Field("127.0.0.1", description="0.0.0.0 listens on every network of this machine")
    port: Port = 11112
    calling_ae_titles: tuple[AETitle, ...] = Field(
        description="who may send; others are refused", min_length=1, strict=False
    )
    check_called_ae_title: bool = Field(default=True, description="refuse senders that call another AE title than ours")
    tls: TLS | None = None
    quiet_seconds: PositiveFloat = Field(30.0, description="without a new object, after which a study is scored")
    without_lesions: Literal["report", "wait"] = Field(
        "report", description="a series that no annotation marks: report that it was not scored, or wait for one"
    )
    find_probability: Probability = Field(
        LEAST_REPORTED, description="with --find: candidates less likely than this to be a lesion are not reported"
    )
    captures: bool = Field(default=True, description="send a picture of each lesion beside the report")
    watch: Watch | None = None
    orthanc: Orthanc | None = None
    destinations: tuple[Destination, ...] = Field(min_length=1, strict=False)
    retry: Retry = Retry()
    limits: ReceptionLimits = ReceptionLimits()

    @field_validator("destinations")
    @classmethod
    def _names_differ(cls, destinations: tuple[CStore | Stow, ...]) -> tuple[CStore | Stow, ...]:
        names = [destination.name for destination in destinations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"name {twice[0]!r} stands twice; give each destination its own")
        return destinations

    @model_validator(mode="after")
    def _listener_has_a_certificate(self) -> Self:
        if self.tls is not None and self.tls.certificate is None:
            raise ValueError("tls of the listener needs certificate and key; give both, or leave tls out")
        return self
