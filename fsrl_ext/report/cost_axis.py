"""The axis of episode costs, on which every value and what happens at the limit can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# A cost axis is linear up to twice the limit, and logarithmic above if costs reach this many limits.
_TALL = 5.0


def cost_axis(axis: Any, values: Sequence[float], limit: float, *, note: bool = True) -> None:
    """Scales an axis so that every value and the limit are on it, and what happens at the limit is seen.

    Values of untrained policies can be many times the limit. The axis then is linear up to twice the limit,
    and logarithmic above. Without a positive limit, the median of the positive values takes its place.

    :param note: whether the legend says where the logarithmic part begins.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    positive = [x for x in values if x > 0]
    finite = [limit] if np.isfinite(limit) else []
    top, bottom = max([*values, *finite, 0.0]), min([*values, *finite, 0.0])
    size = limit if np.isfinite(limit) and limit > 0 else float(np.median(positive)) if positive else 1.0
    if max(top, -bottom) <= _TALL * size:
        height = (top - bottom) or 1.0
        axis.set_ylim(bottom - 0.08 * height, bottom + 1.08 * height)
        return
    axis.set_yscale("symlog", linthresh=2 * size)
    top = max(top, 2 * size)
    axis.set_ylim(bottom * 1.3 if bottom < 0 else -0.3 * size, top * 1.3)
    decades = [k * 10.0**n for n in range(-3, 12) for k in (1, 2, 5)]
    above = [x for x in decades if 2.5 * size < x <= top * 1.3]
    above = above[:: 1 + len(above) // 6]
    ticks = [0.0, size, 2 * size, *above]
    if bottom < 0:
        ticks += [-x for x in (*above, 2 * size) if x <= -bottom * 1.3]
    axis.yaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    if note:
        axis.axhline(2 * size, color="grey", linewidth=0.8, linestyle=":", label="above: logarithmic axis")
