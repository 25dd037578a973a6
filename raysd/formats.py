"""Numbers as people read them."""


def short(value: float) -> str:
    """Return three digits of a small number, whole thousands with commas of a large one: `0.0159`, `28.2`, `1,408`."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
