"""Names in the experiment file that changed. The old ones keep working, with a warning that says the new one."""

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)


def rename_value(field: str, value: Any, names: Mapping[str, str]) -> Any:
    """Return a setting's value, or its new name if it is an old one."""
    if not isinstance(value, str) or value not in names:
        return value
    log.warning("%s: %s is now called %s; change it in the experiment file", field, value, names[value])
    return names[value]


def rename_keys(values: Any, names: Mapping[str, str]) -> Any:
    """Return the values of a section with its old keys under their new names.

    Args:
        values: a section as it stands in the file; anything but a mapping is returned as it is.
        names: new keys by old ones.
    """
    if not isinstance(values, dict) or not set(names) & set(values):
        return values
    for old in set(names) & set(values):
        log.warning("%s is now called %s; change the name in the experiment file", old, names[old])
    return {names.get(key, key): value for key, value in values.items()}
