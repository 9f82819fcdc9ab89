"""Whole numbers of vector steps, collects and epochs."""


def ceil_div(total: int, part: int) -> int:
    """Return the smallest number of parts of size ``part`` that together hold ``total``."""
    return -(-total // part)


def round_up(steps: int, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` that is at least ``steps``."""
    return ceil_div(steps, multiple) * multiple
