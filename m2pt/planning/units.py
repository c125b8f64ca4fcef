"""Sizes and times as people read them."""


def size(number: int) -> str:
    """Bytes in MiB, or in GiB if there are as many."""
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.1f} MiB"


def hours(number: float) -> str:
    """Hours to two digits, from ten on to a tenth."""
    return f"{number:,.1f}" if number >= 10 else f"{number:.2g}"


def duration(hours: float) -> str:
    """Hours in minutes, hours or days."""
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
