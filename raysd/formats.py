"""Numbers as people read them."""


def short(value: float) -> str:
    """Return three digits of a small number, whole thousands with commas of a large one: `0.0159`, `28.2`, `1,408`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: `12 seconds`, `45 minutes`, `11.2 hours`, `1,408 hours`."""
    if seconds < 120:
        return f"{short(seconds)} seconds"
    return f"{short(seconds / 60)} minutes" if seconds < 7200 else f"{short(seconds / 3600)} hours"


def byte_size(num_bytes: float) -> str:
    """Return a number of bytes in the unit that suits it: `0.9 kB`, `28.2 MB`, `5.48 GB`."""
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if num_bytes < 1000 * factor:
            return f"{short(num_bytes / factor)} {unit}"
    return f"{short(num_bytes / 1e12)} TB"
