"""Figures as people read them."""


def size(count: int) -> str:
    """Bytes for people: 3.2 GB, 45 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
