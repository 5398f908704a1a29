"""How the site is built: ``sphinx-build -W -b html docs docs/_build``; nothing is fetched."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.pycode.parser import VariableCommentPicker

import ztfxr

sys.path.insert(0, str(Path(__file__).parent))
from figures import make_figures

project = "ztfxr"
author = "The ztfxr developers"
project_copyright = "2026, the ztfxr developers"
version = release = ztfxr.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = "ztfxr"
html_static_path = ["_static"]
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"

myst_enable_extensions = ["dollarmath", "deflist", "fieldlist"]
myst_heading_anchors = 3

default_role = "py:obj"
autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

nitpicky = True
# Single backticks of docstrings also hold names of variables, and annotations types of other packages and inner ones.
nitpick_ignore_regex = [("py:obj", ".*"), ("py:class", r"(?!ztfxr\.).*|ztfxr\.\w+\..*"), ("py:exc", r"(?!ztfxr\.).*")]

make_figures(Path(__file__).parent / "_static" / "made")

# Overloads are for type checkers: their `**options` would hide the real signature from readers.
VariableCommentPicker.add_overload_entry = lambda *_: None
