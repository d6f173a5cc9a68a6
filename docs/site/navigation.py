"""The site's navigation is the pages' own lists of links: a section of docs/index.md becomes a part of the sidebar."""

import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([\w./-]+\.md)(?:#[\w-]*)?\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CONTENTS = ("docs/index", "docs/ladder")  # pages whose links are the navigation


def toctrees(text: str, folder: str = "") -> str:
    """A hidden toctree for each section of the page with links to pages, in their order and with their words.

    ``folder``: only links into it count, and pages are called by their headings.
    """
    found: list[str] = []
    seen: set[str] = set()
    for section in re.split(r"^## +", FENCE.sub("", text), flags=re.MULTILINE):
        entries = []
        for words, page in LINK.findall(section):
            if page.startswith(folder) and page not in seen:
                seen.add(page)
                entries.append(page if folder else f"{words.replace('`', '')} <{page}>")
        if entries:
            title = section.partition("\n")[0].strip()
            caption = [f":caption: {title}"] if found and not folder else []
            found.append("\n".join(["```{toctree}", ":hidden:", *caption, "", *entries, "```"]))
    return "\n\n".join(found)


def add_toctrees(app: Any, docname: str, source: list[str]) -> None:
    if docname in CONTENTS:
        folder = "" if docname == app.config.root_doc else docname.rpartition("/")[2] + "/"
        source[0] += "\n\n" + toctrees(source[0], folder) + "\n"


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", add_toctrees)
    return {"parallel_read_safe": True}
