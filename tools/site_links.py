"""A hook of MkDocs: links from a page to files of the repository outside docs/ lead to the repository on the web."""

import re
from typing import Any

OUTSIDE = re.compile(r"\]\(\.\./([^)\s#]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Return the page's text with links that also work on the site."""
    return OUTSIDE.sub(lambda link: f"]({config.repo_url}/blob/main/{link[1]}{link[2] or ''})", markdown)
