"""Preprocess cases, several at a time and in order, with the one preprocessing function."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.cases.cache import StoredInputs, look
from pipeline.cases.case import Case
from pipeline.cases.covariates import NO_COVARIATES, EnvelopeOfCase, measure_name, read_covariates
from pipeline.cases.remote import local_copy
from pipeline.config.inputs import Preprocessing, Scale
from pipeline.errors import CaseError, Code
from pipeline.imaging.checks import within_root
from pipeline.imaging.envelope import Envelope
from pipeline.imaging.image import Scan
from pipeline.imaging.preprocess import ModelInput, ScanRequest, preprocess
from pipeline.machine import usable_cores

PreparationResult = ModelInput | CaseError


def prepare_case(
    case: Case,
    config: Preprocessing,
    *,
    modality: str,
    root: Path | None,
    envelope: Envelope | None = None,
    stored: StoredInputs | None = None,
    covariates: Mapping[str, Scale] = NO_COVARIATES,
    scan: Scan | None = None,
) -> PreparationResult:
    """Read and preprocess one case; a case that cannot be used comes back as its error.

    Args:
        case: what to read.
        config: how.
        modality: as the model or the configuration declares it.
        root: folder that the image must not leave; None for a scan named by the user.
        envelope: of the model; None while it is not fitted yet.
        stored: store of preprocessed inputs; used only for cases on this machine and without an envelope.
        covariates: columns that the case must have, and their scales; added to its measures.
        scan: the case's scan, when it has been opened before; it is not opened again.
    """
    if case.fault:
        return case.fault
    try:
        values = read_covariates(case, covariates)
        if config.zoom:
            config = config.for_size(values[measure_name(config.zoom.column)])
        if stored is not None and envelope is None and case.url is None:
            # Covariates are not stored with the scan's input, since the table may change.
            prepared = _prepare_stored(case, config, modality=modality, root=root, stored=stored)
        else:
            accepted = envelope and EnvelopeOfCase(envelope, values)
            with nullcontext(case) if scan else local_copy(case) as local:
                request = ScanRequest(
                    local.path, local.center_mm, root=root, files=local.files, part=local.part, scan=scan
                )
                prepared = preprocess(request, config, modality=modality, envelope=accepted)
        return replace(prepared, measures={**prepared.measures, **values})
    except CaseError as error:
        return error
    except MemoryError:
        return CaseError(
            Code.E_TOO_LARGE,
            case.image,
            "does not fit into memory; lower preprocessing.limits.max_bytes or crop the scan",
        )


def _prepare_stored(
    case: Case, config: Preprocessing, *, modality: str, root: Path | None, stored: StoredInputs
) -> ModelInput:
    """The case's stored input, or the one that it is preprocessed into, which is stored."""
    if root is not None:
        within_root(case.path, root)
    place = stored.place(case, config, modality=modality)
    prepared = stored.find(case, place)
    if prepared is not None:
        return prepared
    before = look(case)
    outcome = prepare_case(case, config, modality=modality, root=root)
    if isinstance(outcome, CaseError):
        raise outcome
    return outcome if before is None else stored.keep(outcome, place, before, case)


def prepare_cases(
    cases: Iterable[Case],
    config: Preprocessing,
    *,
    modality: str,
    root: Path | None,
    envelope: Envelope | None = None,
    stored: StoredInputs | None = None,
    covariates: Mapping[str, Scale] = NO_COVARIATES,
    threads: int | None = None,
) -> Iterator[tuple[Case, PreparationResult]]:
    """Prepare many cases in threads (decompression and resampling release the interpreter lock), in order.

    At most four results per thread are held, so memory does not grow with the number of cases.
    """
    threads = threads or usable_cores()
    prepare = partial(
        prepare_case,
        config=config,
        modality=modality,
        root=root,
        envelope=envelope,
        stored=stored,
        covariates=covariates,
    )
    waiting: deque[tuple[Case, Future[PreparationResult]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        try:
            for case in cases:
                waiting.append((case, pool.submit(prepare, case)))
                if len(waiting) >= 4 * threads:
                    oldest, outcome = waiting.popleft()
                    yield oldest, outcome.result()
            while waiting:
                oldest, outcome = waiting.popleft()
                yield oldest, outcome.result()
        finally:
            for _, outcome in waiting:
                outcome.cancel()
