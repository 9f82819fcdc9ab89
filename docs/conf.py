"""Settings of Sphinx for ``make docs``, which builds the pages of this folder into ``docs/_build/html``."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_extensions"), str(DOCS.parent)]

import fsrl_ext  # noqa: E402 - the package beside these pages, whatever else is installed

project = "fsrl_ext"
author = "The fsrl_ext authors"
release = fsrl_ext.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "repository_pages",
    "mathml",
    "documented",
    "notebooks",
]
exclude_patterns = ["_build", "_extensions", "_static"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_url_schemes = {"http": None, "https": None, "mailto": None, "repository": None}

default_role = "code"
highlight_language = "text"

autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"fsrl_ext {release}"
html_show_sphinx = False
html_copy_source = False
# The summaries would be read from other files, which browsers forbid to pages that are opened from a disk.
html_show_search_summary = False
