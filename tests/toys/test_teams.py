"""The optimum of the team is that of a grid of throttles."""

import numpy as np
import pytest

from toys.teams import team_optimum, team_return


@pytest.mark.parametrize("limit", [6.0, 11.0, 16.0])
def test_no_throttles_within_the_limit_earn_more(limit):
    slow, fast, best = team_optimum(limit)
    assert 10 * (slow + fast) == pytest.approx(limit)
    x = np.linspace(0, 1, 1001)
    y = np.minimum(limit / 10 - x, 1.0)
    returns = team_return(x[y >= 0], y[y >= 0])
    assert returns.max() == pytest.approx(best, rel=1e-6)
    assert x[y >= 0][returns.argmax()] == pytest.approx(slow, abs=2e-3)
