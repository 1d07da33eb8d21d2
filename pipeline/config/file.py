"""Reading a configuration: one YAML file of values, never code, and dotted overrides (``training.max_epochs=5``).

Every mistake is one line: file, key, value, limit, remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from pipeline.config.detection import DETECTION, DetectionConfig
from pipeline.config.experiment import Config
from pipeline.config.gate_policy import GatePolicy
from pipeline.config.inputs import Section
from pipeline.config.listening import ListenConfig
from pipeline.config.plain_yaml import parse_yaml
from pipeline.errors import ConfigError

_TABLES = ("manifest", "extra_columns")  # keys of data
_SCAN_TABLES = ("scans", "lesions")  # of a detector's
SectionT = TypeVar("SectionT", bound=Section)
_LISTENER_PATHS = ("folder", "certificate", "key", "ca")
_TABLE_SUFFIXES = (".csv", ".tsv", ".tab", ".xlsx", ".xlsm", ".parquet")
_LONGEST = 100  # characters of a user's value that a message repeats


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check the configuration of a classifier.

    Files that it names by a relative path are looked for beside it first, then from the current folder; those that an
    override names, the other way round. One that is in neither place keeps its path: `missing_file` names both.

    Args:
        path: a YAML file.
        overrides: ``section.key=value`` texts; the value is read as YAML.

    Raises:
        ConfigError: with one line for each mistake.
    """
    tree = _read_tree(path, overrides)
    if tree.get("task") == DETECTION:
        raise ConfigError(f"{path}: task: {DETECTION!r} trains a detector; only malignancy train takes that")
    config = _validated(path, tree, Config)
    named = {override.partition("=")[0] for override in overrides}
    mapping: dict[str, Any] = {}
    for key in _TABLES:
        table = getattr(config.data, key)
        if table is not None:
            mapping[key] = _locate(path, table, current_first=f"data.{key}" in named)
    if config.data.lesions:
        first = "data.lesions" in named
        mapping["lesions"] = tuple(_locate(path, source, current_first=first) for source in config.data.lesions)
    update: dict[str, Any] = {"data": config.data.model_copy(update=mapping)}
    if weights := config.network.weights:
        file = _locate(path, weights, current_first="network.weights" in named)
        update["network"] = config.network.model_copy(update={"weights": file})
    return config.model_copy(update=update)


def load_detection_config(path: Path, overrides: Sequence[str] = ()) -> DetectionConfig:
    """Read and check the configuration of a detector; its tables are looked for as a classifier's are.

    Raises:
        ConfigError: with one line for each mistake.
    """
    config = _validated(path, _read_tree(path, overrides), DetectionConfig)
    named = {override.partition("=")[0] for override in overrides}
    tables = {
        key: _locate(path, getattr(config.data, key), current_first=f"data.{key}" in named) for key in _SCAN_TABLES
    }
    return config.model_copy(update={"data": config.data.model_copy(update=tables)})


def is_detection(path: Path, overrides: Sequence[str] = ()) -> bool:
    """Whether a configuration trains a detector; its other keys are not checked.

    Raises:
        ConfigError: when it is no YAML file of keys.
    """
    return _read_tree(path, overrides).get("task") == DETECTION


def load_training_config(path: Path, overrides: Sequence[str] = ()) -> Config | DetectionConfig:
    """Read and check what ``malignancy train`` takes: the configuration of a classifier, or of a detector.

    Raises:
        ConfigError: with one line for each mistake.
    """
    return load_detection_config(path, overrides) if is_detection(path, overrides) else load_config(path, overrides)


def load_gate_policy(path: Path) -> GatePolicy:
    """Read and check a file of the gate's limits.

    Raises:
        ConfigError: with one line for each mistake.
    """
    return _validated(path, _read_yaml(path), GatePolicy)


def _read_tree(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    tree = _read_yaml(path)
    for override in overrides:
        _apply_override(tree, override)
    return tree


def _validated(path: Path, tree: Any, section: type[SectionT]) -> SectionT:
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, problem) for problem in error.errors())) from None


def load_listen_config(path: Path) -> ListenConfig:
    """Read and check the configuration of a listener; paths in it are taken from the file's own folder.

    Raises:
        ConfigError: with one line for each mistake.
    """
    return _validated(path, _absolute(_read_yaml(path), path.absolute().parent), ListenConfig)


def _absolute(value: Any, folder: Path) -> Any:
    """A tree of settings in which every path of a listener's is absolute."""
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: str(folder / item) if key in _LISTENER_PATHS and isinstance(item, str) else _absolute(item, folder)
        for key, item in value.items()
    }


def _locate(path: Path, named: Path, *, current_first: bool) -> Path:
    """A file that a configuration names, beside it or from the current folder; as it is named when it is in neither."""
    places = [path.parent / named, named]
    return next((place for place in (reversed(places) if current_first else places) if place.exists()), named)


def missing_file(path: Path, key: str, file: Path) -> ConfigError:
    """The error for a file that a configuration names and that is in neither place where it is looked for.

    Args:
        path: of the configuration.
        key: that names the file.
        file: as it is named.
    """
    places = dict.fromkeys([(path.absolute().parent / file), Path.cwd() / file])
    return ConfigError(f"{path}: {key}: no such file: {' and '.join(map(str, places))}; correct the path")


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.is_dir() or path.suffix.lower() in _TABLE_SUFFIXES:
        beside = path / "config.yaml" if path.is_dir() else path.with_name("config.yaml")
        hint = (
            f"; did you mean {beside}?" if beside.is_file() else "; give a YAML file, as `malignancy init` writes one"
        )
        raise ConfigError(f"{path}: is a {'folder' if path.is_dir() else 'table'}, expected a configuration{hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; shipped ones are under configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__}); save it as UTF-8") from None
    try:
        tree = parse_yaml(text)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not valid YAML: {problem or 'unreadable'}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {type(tree).__name__}, expected sections with keys; see configs/demo.yaml")
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted or not all(dotted.split(".")):
        raise ConfigError(f"override {_shown(override)}: expected section.key=value, for example training.max_epochs=5")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "unreadable"
        raise ConfigError(f"override {_shown(override)}: not a YAML value ({problem}); quote it") from None
    *sections, key = dotted.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {_shown(override)}: {_shown(section)} is a value, not a section")
    tree[key] = value


_REMEDIES = {
    "extra_forbidden": "unknown key; check its spelling and section, or remove it",
    "missing": "required and absent; add it",
}


def _explain(path: Path, problem: Any) -> str:
    """One line for one pydantic error: file, key, value, limit, remedy."""
    key = ".".join(str(part) for part in problem["loc"])
    key = key if len(key) <= _LONGEST else f"{key[:_LONGEST]}..."
    if problem["type"] == "value_error":  # ours: the message names what it is about
        return f"{path}: {key + ': ' if key else ''}{problem['ctx']['error']}"
    if problem["type"] in _REMEDIES:
        return f"{path}: {key}: {_REMEDIES[problem['type']]}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{path}: {key}: {_shown(problem['input'])} is not accepted: {message}; change the value"


def _shown(value: object) -> str:
    """A user's value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 4 :]}"
