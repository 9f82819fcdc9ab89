"""Numbers of steps are rounded up to whole parts."""

import pytest

from fsrl_ext.data.sizes import ceil_div, round_up


@pytest.mark.parametrize(
    ("total", "part", "parts"), [(0, 3, 0), (1, 3, 1), (3, 3, 1), (4, 3, 2), (10**17 + 1, 10, 10**16 + 1)]
)
def test_rounding_up(total, part, parts):
    assert ceil_div(total, part) == parts
    assert round_up(total, part) == parts * part
