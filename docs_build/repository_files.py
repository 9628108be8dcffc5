"""Files of the repository outside docs/: which of them are pages of the site, and what links to the others become.

Links are written for the repository, where every file has a place. On the site

- a link to a file of `PAGES` leads to its page, and those in these files to pages of docs/;
- a link to a file or folder in `COPIED` leads to a copy;
- any other file is shown by its path, since the repository has no address that is known here.
"""

import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files at the root of the repository that are pages, and the names of the pages."""
MADE = {"docs/notebook.py": "notebook.md"}
"""Files of docs/ that pages are made of by another hook."""
COPIED = ("reports",)
"""Folders whose files are copied where a page links to them; they are whole without the others."""
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
CODE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of `PAGES`, and what is linked to in `COPIED`."""
    root = _root(config)
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / source).read_text(encoding="utf-8")))
    pages = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    targets = {path for page, text in pages for path in _linked(text, page) if path.startswith(COPIED)}
    for target in sorted(targets):
        files.append(File.generated(config, target, abs_src_path=str(root / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page from those of the repository into those of the site.

    Raises:
        PluginError: a file of the repository is linked to that is not there.
    """
    source = page.file.src_uri
    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(lambda m: _converted(m, source, files, _root(config)), part) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have docstrings, which name pages by their places in the repository, link to them."""
    if not page.file.src_uri.startswith("reference/"):
        return html
    return re.sub(r"docs/(\w+)\.md", r'<a href="../\1.html">docs/\1.md</a>', html)


def _converted(link: re.Match[str], page: str, files: Files, root: Path) -> str:
    text = link["text"]
    path, _, anchor = link["target"].partition("#")
    if ":" in path or not path:
        return f"{link['picture']}[{text}]({link['target']})"
    place = _place_in_repository(path, page)
    on_site = (PAGES | MADE).get(place, place.removeprefix("docs/"))
    if files.get_file_from_path(on_site) is None:
        if not (root / place).exists():
            raise PluginError(f"{_source_of(page)} links to {place}, which does not exist")
        return text if place in text else f"{text} (`{place}`)"
    target = posixpath.relpath(on_site, posixpath.dirname(page) or ".")
    return f"{link['picture']}[{text}]({target}{'#' * bool(anchor)}{anchor})"


def _linked(text: str, page: str) -> set[str]:
    """Paths in the repository that a page links to."""
    targets = [m["target"].partition("#")[0] for part in CODE.split(text)[::2] for m in LINK.finditer(part)]
    return {_place_in_repository(target, page) for target in targets if target and ":" not in target}


def _place_in_repository(path: str, page: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(_source_of(page)), unquote(path)))


def _source_of(page: str) -> str:
    return next((source for source, name in PAGES.items() if name == page), f"docs/{page}")


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent
