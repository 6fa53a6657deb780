"""The built site needs no network, its links lead somewhere, and its formulas are MathML."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy: nothing is left in the working tree."""
    for tool in ("zensical", "mkdocstrings", "l2m4m"):
        pytest.importorskip(tool, reason=f"{tool} is not installed (pip install -e '.[docs]')")
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for part in ("docs", "examples"):  # a page may show a program of the examples
        shutil.copytree(ROOT / part, folder / part)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


class Page(HTMLParser):
    """What a page loads, links to, and can be linked by."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag != "a":
            self.loads += [given[n] for n in ("src", "srcset", "href", "data") if n in given]


def _pages(site: Path) -> Iterator[tuple[str, Page]]:
    for path in sorted(site.rglob("*.html")):
        yield str(path.relative_to(site)), Page(path)


def test_the_site_loads_nothing_from_the_network(site: Path) -> None:
    for name, page in _pages(site):
        away = [url for url in page.loads if re.match(r"(?:https?:)?//", url)]
        assert not away, f"{name}: {away}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", text), style.name


def test_links_and_anchors_lead_somewhere(site: Path) -> None:
    pages = {name: page for name, page in _pages(site) if name != "404.html"}
    broken = []
    for name, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (site / name).parent / unquote(url.path) if url.path else site / name
            target = Path(os.path.normpath(target))
            target = target / "index.html" if target.is_dir() else target
            found = pages.get(str(target.relative_to(site)))
            anchor = unquote(url.fragment)
            if not target.exists() or (anchor and found and anchor not in found.anchors):
                broken.append(f"{name}: {link}")
    assert not broken


def _prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"`[^`]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def test_formulas_are_mathml(site: Path) -> None:
    """Each formula of a page is one element of the built page, which a browser shows by itself."""
    for source in (ROOT / "docs").rglob("*.md"):
        prose = _prose(source.read_text(encoding="utf-8"))
        prose, blocks = re.subn(r"\$\$.*?\$\$", "", prose, flags=re.DOTALL)
        prose, inline = re.subn(r"\$(?! )[^$]+(?<! )\$(?!\d)", "", prose)
        assert "$" not in prose, f"{source.name}: a $ is no formula; write an amount in words"
        place = source.relative_to(ROOT / "docs").with_suffix("")
        built = site / ("index.html" if place.name == "index" else place / "index.html")
        text = built.read_text(encoding="utf-8")
        if source.parent.name != "api":  # whose formulas stand in the docstrings
            assert text.count('<math display="block"') == blocks, source.name
            assert text.count('<math display="inline"') == inline, source.name
        assert "<merror" not in text
        assert not re.search(r":math:|\.\. math|arithmatex", text), source.name
