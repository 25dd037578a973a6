"""The README for the package index, where relative links lead nowhere; all else is in pyproject.toml."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+://|#)([^)\s]+)\)")


def absolute_links(text: str, repository: str) -> str:
    """Return a Markdown text whose links to files lead to the repository on the web."""

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link[1] else "blob"
        return f"{link[1]}[{link[2]}]({repository}/{kind}/main/{link[3]})"

    return RELATIVE.sub(absolute, text)


project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
setup(
    long_description=absolute_links((HERE / "README.md").read_text(), project["urls"]["Repository"]),
    long_description_content_type="text/markdown",
)
