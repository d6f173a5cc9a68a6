"""Settings of the documentation's site, for Sphinx: `make docs`.

The pages are the Markdown files as they lie in the repository, whose root is the source folder, so that a link which
works there works on the site.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

project = "cnnengine"
html_title = project

extensions = ["myst_parser", "navigation", "source_pages"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md"]
exclude_patterns = [".*", "build", "dist", "runs", "bench", "csrc", "cnnengine", "kernels", "tests", "examples"]

myst_heading_anchors = 4  # headings have the names that GitHub gives them
nitpicky = True
highlight_language = "text"  # of blocks that name none

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["index"]  # sends a visitor of the site's root to the first page
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}
