"""Sphinx configuration: `sphinx-build -W docs docs/_build/html`.

The gallery runs every script of `examples/` in a copy under `_build`. With DOCS_SHORT=1 in the environment it runs
their short forms, with which the tests run them; DOCS_JOBS is the number of scripts that run at once (2).
"""

import os
import re
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# the workers of the gallery read both before they import anything
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import gallery  # noqa: E402

project = "ase_kinoson"
author = "The ase_kinoson developers"
copyright = "2026, The ase_kinoson developers"
try:
    release = metadata.version("ase-kinoson")
except metadata.PackageNotFoundError:  # the text pages need no installation
    release = "development"

extensions = [
    "api_pages",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
if find_spec("sphinx-mathjax-offline"):  # equations without a network; else MathJax comes from where Sphinx has it
    extensions.append("sphinx-mathjax-offline")
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_templates", "gallery_header.rst"]
templates_path = ["_templates"]

# -- pages -------------------------------------------------------------------------------------------------------------
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

# -- names of the package, from its docstrings -------------------------------------------------------------------------
# by name, so that a page is looked at again in a build that follows another
autosummary_generate = [name for name in ("api.md",) if (HERE / name).is_file()]
autodoc_typehints = "none"  # the docstrings say it
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# -- the gallery -------------------------------------------------------------------------------------------------------
jobs = int(os.environ.get("DOCS_JOBS", "2")) if find_spec("joblib") else 1
can_run = gallery.copy_examples(short=os.environ.get("DOCS_SHORT", "") not in ("", "0"))
sphinx_gallery_conf = {
    "examples_dirs": "_build/examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "|".join(re.escape(os.sep + name) + "$" for name in can_run) or "(?!)",
    "within_subsection_order": "gallery.position",
    "reset_modules": ("matplotlib", "gallery.give_file"),
    "parallel": jobs if jobs > 1 else False,
    "capture_repr": (),
    "image_srcset": ["2x"],
    "remove_config_comments": True,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("ase_kinoson",),
    "log_level": {"backreference_missing": "info"},  # not every name is in an example
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}

# -- look --------------------------------------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "ase_kinoson"
html_static_path = ["_static"]
html_css_files = ["ase_kinoson.css"]
html_show_sourcelink = False
html_sidebars = {"**": ["pages.html"]}
html_theme_options = {
    "logo": {"text": "ase_kinoson"},
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
