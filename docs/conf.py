"""Sphinx configuration: ``make docs`` builds the site into docs/_build/html."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

import pipeline

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from reference_pages import write_if_changed  # noqa: E402

project = "malignancy-pipeline"
author = "the malignancy-pipeline developers"
release = pipeline.__version__
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "reference_pages",  # docs/_ext
]
exclude_patterns = ["_build", "_ext"]
templates_path: list[str] = []

# Notebooks stand in /notebooks with their outputs; they are run by the tests, not by the build.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "malignancy-pipeline"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sphinx = False
html_show_copyright = False
highlight_language = "none"  # of blocks that name none: commands, output, folders

# Only links to files of this project are checked: the build needs no network.
linkcheck_ignore = [r"https?://.*"]


def setup(app: Sphinx) -> None:
    """Called by Sphinx: links between pages and notebooks hold in the repository, and are turned for the site."""
    for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        text = notebook.read_text(encoding="utf-8").replace("](../docs/", "](../")
        write_if_changed(HERE / "tutorials" / notebook.name, text)
    app.connect("source-read", _link_to_tutorials)


def _link_to_tutorials(_: Sphinx, name: str, source: list[str]) -> None:
    if not name.startswith("tutorials/"):
        # "../../notebooks/", as it is in the repository, is "../tutorials/" in the site: one folder nearer.
        source[0] = re.sub(r"\]\(\.\./((?:\.\./)*)notebooks/", r"](\1tutorials/", source[0])
