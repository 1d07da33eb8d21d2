"""``malignancy config``: a configuration as it is resolved, with every key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.config.file import load_training_config


def resolved_config(config_path: Path, overrides: Sequence[str] = ()) -> str:
    """A configuration with its overrides and every default, as YAML that ``malignancy train`` takes.

    Args:
        config_path: of the configuration.
        overrides: ``section.key=value``, in order.

    Returns:
        YAML whose file, in any folder that the paths in it are given from, resolves to the same configuration.

    Raises:
        ConfigError: as ``malignancy train`` would.
    """
    settings = load_training_config(config_path, overrides).model_dump(mode="json")
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
