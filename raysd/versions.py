"""Versions of the software that shapes a result, for records."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("raysd", "ray", "torch", "diffusers", "transformers", "timm", "pyarrow", "numpy", "pillow", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the main packages."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
