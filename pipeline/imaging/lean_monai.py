"""MONAI without the optional packages that nothing here uses: a quarter of the time to import it.

``import monai`` imports all its submodules, and each looks for the optional packages that it could work with: MLflow,
pandas, Ignite, Matplotlib and two dozen others are imported where they are installed, for handlers, bundles and readers
that this project does not call. While they are hidden, MONAI finds them absent, as it does on a machine without them.

Only processes of the command ``malignancy`` and the workers that it starts do this. Programs that import the package
get MONAI unchanged, since they may use its handlers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# Of MONAI's optional imports those that take long, or that import such a package themselves. SciPy is named by its
# parts: nibabel imports the whole, which imports none of them.
OPTIONAL_PACKAGES = (
    "PIL",
    "batchgenerators",
    "bs4",
    "clearml",
    "cucim",
    "cupy",
    "cv2",
    "einops",
    "gdown",
    "h5py",
    "huggingface_hub",
    "ignite",
    "itk",
    "jsonschema",
    "matplotlib",
    "mlflow",
    "nibabel",
    "onnx",
    "onnxruntime",
    "openslide",
    "optuna",
    "pandas",
    "psutil",
    "pydicom",
    "pynvml",
    "requests",
    "scipy.interpolate",
    "scipy.linalg",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.signal",
    "scipy.sparse",
    "scipy.spatial",
    "scipy.special",
    "scipy.stats",
    "skimage",
    "sklearn",
    "tensorboard",
    "tensorboardX",
    "torchvision",
    "transformers",
)


@contextmanager
def without_optional_packages() -> Iterator[None]:
    """Make `OPTIONAL_PACKAGES` look as if they were not installed; those imported before stay as they are."""
    hidden = [name for name in OPTIONAL_PACKAGES if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python marks a module as absent
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


def install() -> None:
    """Let this process import MONAI lean, if it has not imported it yet. For processes of the command alone."""
    if not is_installed():
        sys.meta_path.insert(0, _LeanFinder())


def is_installed() -> bool:
    """Whether this process imports MONAI lean."""
    return any(isinstance(finder, _LeanFinder) for finder in sys.meta_path)


class _LeanFinder(MetaPathFinder):
    """Finds MONAI as Python does, and hides the optional packages while it is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "monai":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LeanLoader(spec.loader)
        return spec


class _LeanLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        import torch  # noqa: F401  # before anything is hidden, because it looks for optional packages too

        module.__loader__ = self._loader  # the ordinary loader, for requests of MONAI's source or data
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with without_optional_packages():
            self._loader.exec_module(module)
