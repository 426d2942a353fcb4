"""Drawings of the explanation, made from the library's own plan of windows."""


def all_of_them() -> dict[str, str]:
    """Return each drawing as SVG, by name."""
    return {}
