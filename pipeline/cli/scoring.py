"""The commands ``score``, ``report-dicom``, ``serve`` and ``find``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import (
    AcceptRejects,
    BatchSize,
    Engine,
    LesionSources,
    MaxFailureRate,
    MinAge,
    Models,
    NetworkBackend,
    Out,
    RescoreChanged,
    Restart,
    Scans,
    Timeout,
    Track,
    Workers,
)
from pipeline.console import print_summary

FindWith = Annotated[
    str | None, typer.Option(metavar="DETECTOR", help="Search whole scans with this detector, and score what it finds.")
]
_READING_SECONDS, _SEARCH_SECONDS = 60.0, 300.0  # that a client's scan may take, and a whole scan that is searched


def score(
    model: Models,
    source: Scans,
    out: Out,
    engine: Engine = "local",
    workers: Workers = None,
    batch_size: BatchSize = 8,
    backend: NetworkBackend = "eager",
    timeout: Timeout = 300.0,
    restart: Restart = False,
    rescore_changed: RescoreChanged = False,
    max_failure_rate: MaxFailureRate = 1.0,
    accept_rejects: AcceptRejects = 0.0,
    min_age: MinAge = 0.0,
    drift_alert: Annotated[
        float,
        typer.Option(min=0, help="Population stability index beyond chance that makes a clear shift an alert."),
    ] = 0.1,
    lesions: LesionSources = None,
    dicom_results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a DICOM report and pictures of each series there, too.")
    ] = None,
    find: FindWith = None,
    track: Track = True,
) -> None:
    """Score every scan: one row each, with a calibrated probability or the reason why there is none."""
    if dicom_results is not None:
        from pipeline.jobs.report_dicom import require_dicom_results

        require_dicom_results()
    if engine == "local":
        from pipeline.scoring.engines.worker_server import start_server_early

        start_server_early(model, source, out, restart=restart)
    from pipeline.jobs.score import ScoreOptions
    from pipeline.jobs.score import score as job

    options = ScoreOptions(
        engine=engine,
        workers=workers,
        batch_size=batch_size,
        backend=backend,
        timeout_seconds=timeout,
        restart=restart,
        rescore_changed=rescore_changed,
        max_failure_rate=max_failure_rate,
        min_age_seconds=min_age,
        drift_alert=drift_alert,
        lesions=tuple(lesions or ()),
        find=find,
        track=track,
    )
    result = job(model, source, out, options)
    print_summary(result.summary_text)
    is_complete = dicom_results is None or _write_dicom_results(out, source, dicom_results, options.lesions)
    raise typer.Exit(int(result.summary["unscored_share"] > accept_rejects or not is_complete))


def _write_dicom_results(scores: Path, source: str, out: Path, lesions: tuple[Path, ...]) -> bool:
    """Write the DICOM results of a finished scoring; returns whether every row is in a report."""
    from pipeline.jobs.report_dicom import report_dicom as job

    reporting = job(scores, source, out, lesions=lesions)
    print_summary(reporting.summary)
    return reporting.is_complete


def report_dicom(
    scores: Annotated[Path, typer.Argument(metavar="SCORES", help="Output folder of `malignancy score`.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="The manifest, folder or scan that was scored.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the DICOM objects; made when missing.")],
    lesions: LesionSources = None,
) -> None:
    """Write scores as DICOM objects for a PACS: a structured report of each series, a picture of each lesion."""
    from pipeline.jobs.report_dicom import report_dicom as job

    result = job(scores, source, out, lesions=tuple(lesions or ()))
    print_summary(result.summary)
    raise typer.Exit(int(not result.is_complete))


def serve(
    model: Models,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address; others than 127.0.0.1 need a token.")] = "127.0.0.1",
    workers: Workers = None,
    backend: NetworkBackend = "eager",
    find: FindWith = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds that one scan may take to be read: 60, with --find 300."),
    ] = None,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="MB that one request may have.")] = 1024,
    temporary: Annotated[Path | None, typer.Option(help="Folder for uploads; the system's by default.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file; with it the server speaks TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's private key.")] = None,
) -> None:
    """Score scans over HTTP: POST /v1/score; the token is read from MALIGNANCY_SERVE_TOKEN."""
    from pipeline.scoring.engines.worker_server import start_server

    start_server()
    from pipeline.jobs.serve import serve as job
    from pipeline.service.settings import TOKEN_VARIABLE, ServiceLimits, ServiceSettings

    settings = ServiceSettings(
        host=host,
        port=port,
        token=os.environ.get(TOKEN_VARIABLE) or None,
        workers=workers,
        backend=backend,
        timeout_seconds=timeout or (_READING_SECONDS if find is None else _SEARCH_SECONDS),
        temporary=temporary,
        certificate=certificate,
        key=key,
        limits=ServiceLimits(upload_bytes=max_upload_mb << 20),
    )
    job(model, settings, find=find, on_start=_print_address)


def _print_address(url: str) -> None:
    print_summary(f"{url} (POST {url}/v1/score; {url}/docs says how; Ctrl-C ends it)")


def find(
    detector: Annotated[str, typer.Argument(help="Detector's directory or MLflow model URI.")],
    source: Scans,
    out: Out,
    engine: Engine = "local",
    workers: Workers = None,
    timeout: Timeout = 300.0,
    restart: Restart = False,
    rescore_changed: RescoreChanged = False,
    max_failure_rate: MaxFailureRate = 1.0,
    accept_rejects: AcceptRejects = 0.0,
    min_age: MinAge = 0.0,
    track: Track = True,
) -> None:
    """Find lesions in whole scans: one row a candidate, a table that `score` takes, and one row a scan."""
    from pipeline.scoring.engines.worker_server import start_server_early

    if engine == "local":
        start_server_early(detector, source, out, restart=restart)
    from pipeline.jobs.find import find as job
    from pipeline.jobs.score import ScoreOptions

    options = ScoreOptions(
        engine=engine,
        workers=workers,
        timeout_seconds=timeout,
        restart=restart,
        rescore_changed=rescore_changed,
        max_failure_rate=max_failure_rate,
        min_age_seconds=min_age,
        track=track,
    )
    result = job(detector, source, out, options)
    print_summary(result.summary_text)
    raise typer.Exit(int(result.summary["unscored_share"] > accept_rejects))
