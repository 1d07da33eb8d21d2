"""Imported by the server that forks the command's workers, and by nothing else: see `pipeline.imaging.lean_imports`."""

import contextlib
import ctypes
import gc
import importlib.util
import sys
import threading
from pathlib import Path

from pipeline.imaging.lean_imports import defer_compiler, install
from pipeline.machine import garbage_collection_paused


def _load_torch_library() -> None:
    """Load torch's largest library: a sixth of the time of its import, during which Python can run other threads.

    A file that is missing or cannot be loaded is left for torch's own import to report.
    """
    spec = importlib.util.find_spec("torch")
    name = "libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"
    for folder in (spec and spec.submodule_search_locations) or ():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(Path(folder) / "lib" / name))


install()
defer_compiler()
with garbage_collection_paused():
    _thread = threading.Thread(target=_load_torch_library)
    _thread.start()

    # Meanwhile, what does not need torch.
    import pipeline.cases.signature
    import pipeline.imaging.read
    import pipeline.scoring.ensemble

    _thread.join()  # a thread would not survive the fork

    import pipeline.scoring.engines.worker_process  # noqa: F401  # not before MONAI is lean

    gc.freeze()  # so that the workers never look through what is imported
