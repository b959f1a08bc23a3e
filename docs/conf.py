"""Sphinx configuration: `sphinx-build -W docs docs/_build/html`."""

from importlib import metadata

project = "ase_kinoson"
author = "The ase_kinoson developers"
copyright = "2026, The ase_kinoson developers"
try:
    release = metadata.version("ase-kinoson")
except metadata.PackageNotFoundError:  # the text pages need no installation
    release = "development"

extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "pydata_sphinx_theme"
html_title = "ase_kinoson"
