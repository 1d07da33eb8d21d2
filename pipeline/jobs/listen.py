"""``malignancy listen``: receive DICOM series, score them, and send DICOM results, until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.file import load_listen_config
from pipeline.config.listening import ListenConfig
from pipeline.extras import require_extra
from pipeline.jobs.find import verified_detector
from pipeline.machine import usable_cores
from pipeline.scoring.backends import Backend
from pipeline.scoring.engines.workers import ScorerSetup
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.lock import exclusive
from pipeline.scoring.model_verification import verify_model
from pipeline.tracking.registry import model_folders


@dataclass(frozen=True, kw_only=True)
class ListenOptions:
    """How studies are scored.

    Attributes:
        find: a detector of lesions for series that no annotation marks.
        workers: processes; one per core by default.
        batch_size: cases that go through the network together.
        backend: how the networks are run.
        timeout_seconds: that one scan may take to be read.
    """

    find: str | None = None
    workers: int | None = None
    batch_size: int = 8
    backend: Backend = "eager"
    timeout_seconds: float = 300.0


def listen(
    model_names: str,
    config_path: Path,
    options: ListenOptions | None = None,
    *,
    ready: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Receive, score and send until SIGTERM, Ctrl-C or ``stop``.

    Args:
        model_names: one model, or several joined by commas as an ensemble.
        config_path: of a `ListenConfig`.
        options: how; as the command does by default.
        ready: called with the port once objects are received; by default a line is printed.
        stop: ends it, beside the signals.

    Raises:
        UsageError: when the configuration, the models or the packages cannot be used, or the folder is in use.
        UnfinishedError: when the port cannot be had, or nothing can be scored.
    """
    require_extra("dicom", "malignancy listen", "highdicom", "pynetdicom", "dicomweb_client")
    options = options or ListenOptions()
    config = load_listen_config(config_path)
    folders = model_folders(model_names)
    models = Ensemble.of([verify_model(folder) for folder in folders])
    detector = None if options.find is None else verified_detector(options.find, models)
    from pipeline.dicomnet.listening.lesion_search import DetectorSearch
    from pipeline.dicomnet.listening.listener import Listener
    from pipeline.dicomnet.listening.listener_folder import ListenerFolder
    from pipeline.dicomnet.listening.preflight import require_usable

    require_usable(config)
    folder = ListenerFolder(config.folder)
    folder.make()
    workers = options.workers or usable_cores()
    setup = ScorerSetup.on_this_machine(folders, root=config.folder, backend=options.backend, workers=options.workers)
    with exclusive(config.folder), ExitStack() as stack:
        folder.clear_unfinished()
        find = None
        if detector is not None:
            find = DetectorSearch(
                *detector,
                root=config.folder,
                workers=workers,
                timeout_seconds=options.timeout_seconds,
                least_probability=config.find_probability,
            )
            stack.callback(find.close)
        listener = Listener(config, models, setup, workers=workers, timeout_seconds=options.timeout_seconds, find=find)
        listener.run(ready or _announce(config), stop or threading.Event(), batch_size=options.batch_size)


def _announce(config: ListenConfig) -> Callable[[int], None]:
    def announce(port: int) -> None:
        where = f"{config.address}:{port}"
        print(f"listening as {config.ae_title} on {where}, folder {config.folder}; Ctrl-C ends it", flush=True)

    return announce
