"""``PYTHONPATH=tests python -m made_folders OUT``: write the folders of docs/how-to/your-data.md into a new folder."""

import sys
from pathlib import Path

from made_folders import MAKERS


def write_all(out: Path) -> None:
    """Write each into a folder of its name below ``out``, which must not exist yet."""
    out.mkdir(parents=True)
    for name, write in MAKERS.items():
        (out / name).mkdir()
        write(out / name)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
