"""MONAI, nibabel and torch without parts that nothing here uses: much less to import.

``import monai`` imports all its submodules, and each looks for the optional packages that it could work with: MLflow,
pandas, Ignite, Matplotlib and two dozen others are imported where they are installed, for handlers, bundles and readers
that this project does not call. nibabel imports pydicom, for a header extension that is not read here. While they are
hidden, MONAI and nibabel find them absent, as they do on a machine without them.

torch imports a quarter of itself to compute the shapes of tensors without memory, for its compiler. `defer_compiler`
leaves that until something asks for it.

Only processes of the command ``malignancy`` and the workers that it starts do this. Programs that import the package
get all three unchanged, since they may use the rest of them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

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


# What is hidden while a package is imported.
_HIDDEN: dict[str, tuple[str, ...]] = {"monai": OPTIONAL_PACKAGES, "nibabel": ("h5py", "matplotlib", "pydicom")}
_COMPILER = "torch._meta_registrations"  # registers what tensors without memory need; imported by torch at its end


@contextmanager
def without_packages(names: Collection[str]) -> Iterator[None]:
    """Make packages look as if they were not installed; those imported before stay as they are."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python marks a module as absent
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


def install() -> None:
    """Let this process import MONAI and nibabel lean, if it has not imported them. For processes of the command alone.

    A module that is imported for the first time while they are finds the hidden packages absent, too: whoever imports
    one of the two imports nothing else at the same time in another thread.
    """
    if not is_installed():
        sys.meta_path.insert(0, _LeanFinder())


def is_installed() -> bool:
    """Whether this process imports MONAI and nibabel lean."""
    return any(isinstance(finder, _LeanFinder) for finder in sys.meta_path)


def defer_compiler() -> None:
    """Let torch, if it is not imported yet, leave out what only its compiler needs until something asks for it.

    For processes that run networks as they are. A tensor without memory (``device="meta"``) can be made, and has its
    shape; most computations with one need what is left out, and fail.
    """
    if not any(isinstance(finder, _DeferringFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DeferringFinder())


class _LeanFinder(MetaPathFinder):
    """Finds a package as Python does, and hides others while it is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _HIDDEN:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LeanLoader(spec.loader, _HIDDEN[fullname])
        return spec


class _LeanLoader(Loader):
    def __init__(self, loader: Loader, hidden: Collection[str]) -> None:
        self._loader, self._hidden = loader, hidden

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "monai":
            import torch  # noqa: F401  # before anything is hidden, because it looks for optional packages too

        module.__loader__ = self._loader  # the ordinary loader, for requests of the package's source or data
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with without_packages(self._hidden):
            self._loader.exec_module(module)


class _DeferringFinder(MetaPathFinder):
    """Finds the module that is left out, and lets it be executed when the first of its names is asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _COMPILER:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _DeferringLoader(spec.loader)
        return spec


class _DeferringLoader(Loader):
    """Like `importlib.util.LazyLoader`, which executes the module when anything looks at it, as ``inspect`` does."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        def first_use(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            vars(module).pop("__getattr__", None)
            self._loader.exec_module(module)
            return getattr(module, name)

        vars(module)["__getattr__"] = first_use
