"""The documentation's site: sources become pages, the index becomes the sidebar, a link that leads nowhere fails."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from .lines import ROOT

SITE = ROOT / "docs/site"
INDEX = "# Title\n\n[README](../README.md)\n\n## Part one\n\n* [First page](first.md#some-words): of all\n"
KERNEL = "template <class T> __global__ void halve(T* x);\n"


def navigation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("navigation", SITE / "navigation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(root: Path, first: str) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A project of three pages and one kernel, built as `make site` does."""
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason=f"{module} is not installed (pip install 'cnnengine[docs]')")
    files = {"README.md": "# Project\n", "docs/index.md": INDEX, "docs/first.md": first, "csrc/halve.cuh": KERNEL}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    options = ("-E", "-W", "--keep-going", "-q", "-c", str(SITE))
    command = [sys.executable, "-m", "sphinx", *options, ".", "build/site"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    return root / "build/site", done


def test_site(tmp_path: Path) -> None:
    page = "# First\n\n## Some words\n\n[kernel](../csrc/halve.cuh), [folder](../csrc/), [above](#first)\n"
    site, done = build(tmp_path, page)
    assert done.returncode == 0, done.stderr
    first = (site / "docs/first.html").read_text()
    assert 'href="../source/csrc/halve.cuh.html"' in first
    assert 'href="../source/csrc.html"' in first
    kernel = (site / "source/csrc/halve.cuh.html").read_text()
    assert re.sub("<[^>]*>", "", kernel).count("__global__ void halve(T* x);") == 1
    assert 'href="csrc/halve.cuh.html"' in (site / "source/csrc.html").read_text()
    sidebar = first[first.index("sidebar-tree") :]
    assert sidebar.index("Part one") < sidebar.index("First page")
    assert 'url=docs/index.html"' in (site / "index.html").read_text()


def test_site_needs_no_network(tmp_path: Path) -> None:
    """Styles, scripts and fonts are its own."""
    site, done = build(tmp_path, "# First\n\n## Some words\n")
    assert done.returncode == 0, done.stderr
    for page in site.rglob("*.html"):
        assert re.findall(r'<(?:link|script|img)\b[^>]*(?:href|src)="(?:https?:)?//', page.read_text()) == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text()) == [], style


def test_site_with_links_that_lead_nowhere_fails(tmp_path: Path) -> None:
    wrong = ("gone.md", "../csrc/gone.cuh", "#gone", "index.md#gone")
    page = "# First\n\n## Some words\n\n" + "".join(f"* [words]({target})\n" for target in wrong)
    _, done = build(tmp_path, page)
    assert done.returncode != 0
    for number, target in enumerate(wrong, start=5):
        assert re.search(rf"first\.md:{number}: WARNING: .*gone", done.stderr), f"{target}:\n{done.stderr}"


def test_sidebar_is_the_list_of_links() -> None:
    text = "[R](../R.md)\n\n## One\n\n[`a`](a.md), [b](s/b.md), [x](x.py), [again](a.md)\n\n```sh\n[c](c.md)\n```\n"
    start = "```{toctree}\n:hidden:\n"
    toctrees = navigation().toctrees
    assert toctrees(text) == f"{start}\nR <../R.md>\n```\n\n{start}:caption: One\n\na <a.md>\nb <s/b.md>\n```"
    assert toctrees(text, "s/") == f"{start}\ns/b.md\n```"
