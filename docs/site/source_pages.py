"""Source files to which the pages link become pages of the site: highlighted, under source/.

A link to a folder leads to a list of its files, which become pages too. What is no text the site knows is copied.
"""

import os
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from sphinx.addnodes import download_reference, pending_xref
from sphinx.transforms import SphinxTransform

LEXERS = {".py": "python", ".cuh": "cuda", ".h": "cpp", ".cpp": "cpp", ".inl": "cpp", ".c": "c", ".sh": "bash"}
LEXERS |= {".md": "markdown", ".toml": "toml", ".txt": "text"}
ROOM = "source"  # the folder of the site where they are


class SourceLinks(SphinxTransform):
    """Turns links to what is no page into links to source pages, and notes what they lead to."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        root, page = Path(self.app.srcdir), self.env.docname
        for node in list(self.document.findall(lambda n: isinstance(n, download_reference | pending_xref))):
            path = self.path(node)
            if node.get("reftype") != "myst" or path is None:
                continue
            self.app.linked_sources.add(path)
            uri = self.app.builder.get_relative_uri(page, name_of(path, root))
            if is_copied(path):
                uri = uri.removesuffix(".html")
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))

    def path(self, node: Any) -> Path | None:
        """What the node leads to, or None where it is a page or nothing in the repository."""
        root, target = Path(self.app.srcdir), node["reftarget"]
        if node.get("refdomain") == "doc":  # Markdown: a page, or none of the site's
            found = None if target in self.env.found_docs else root / f"{target}.md"
        else:
            found = Path(os.path.normpath((root / self.env.docname).parent / target.split("#")[0]))
        return found if found and found.exists() and found.is_relative_to(root) else None


def name_of(path: Path, root: Path) -> str:
    return "/".join((ROOM, *path.relative_to(root).parts))


def is_copied(path: Path) -> bool:
    return path.is_file() and path.suffix not in LEXERS and path.name != "Makefile"


def is_shown(path: Path) -> bool:
    """Whether it belongs to the list of a folder."""
    return not path.name.startswith((".", "__pycache__")) and path.suffix != ".so"


def page_of(path: Path, root: Path) -> str:
    """The page's HTML."""
    above = f"<h1>{escape(str(path.relative_to(root)))}</h1>"
    if path.is_dir():
        inside = sorted((p for p in path.iterdir() if is_shown(p)), key=lambda p: (p.is_file(), p.name))
        rows = (
            f'<li><a href="{escape(path.name)}/{escape(p.name)}{"" if is_copied(p) else ".html"}">{escape(p.name)}'
            f"{'/' if p.is_dir() else ''}</a></li>"
            for p in inside
        )
        return f"{above}<ul>{''.join(rows)}</ul>"
    language = "make" if path.name == "Makefile" else LEXERS[path.suffix]
    formatter = HtmlFormatter(linenos="inline", wrapcode=True, cssclass="highlight")
    return above + highlight(path.read_text(encoding="utf-8"), get_lexer_by_name(language), formatter)


def source_pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Of what was linked to, and of what lies in linked folders."""
    root = Path(app.srcdir)
    waiting, known = sorted(app.linked_sources), set(app.linked_sources)
    while waiting:
        path = waiting.pop()
        if path.is_dir():
            inside = [p for p in path.iterdir() if is_shown(p) and p not in known]
            known.update(inside)
            waiting += inside
        if is_copied(path):
            copy = Path(app.outdir, name_of(path, root))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        else:
            yield name_of(path, root), {"title": path.name, "body": page_of(path, root)}, "page.html"


def setup(app: Any) -> dict[str, bool]:
    app.linked_sources = set()
    app.add_transform(SourceLinks)
    app.connect("html-collect-pages", source_pages)
    return {"parallel_read_safe": False}
