"""The progress bar of a training run, and that of everything else that takes a while."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from fsrl_ext.cost_names import LimitUnit, cost_word, labelled
from fsrl_ext.data import CostCollectStats

T = TypeVar("T")

DELAY = 1.0
"""Seconds before :func:`progress` shows anything, so that what is quick shows nothing."""


def progress(items: Iterable[T], what: str, *, total: int, show: bool, unit: str = "episode") -> Iterator[T]:
    """Yield the items, and show on a terminal how many of them were yielded.

    The bar disappears at the end. Nothing is shown where stderr is no terminal.

    :param what: what the bar begins with, such as ``"evaluation"``.
    :param total: how many units all items are together; an item that is a list counts as its length.
    :param show: False shows nothing anywhere.
    """
    if not show or not sys.stderr.isatty():
        yield from items
        return
    with tqdm(desc=what, total=total, unit=unit, dynamic_ncols=True, leave=False, delay=DELAY) as bar:
        for item in items:
            yield item
            bar.update(len(item) if isinstance(item, list) else 1)


class ProgressBar:
    """One bar for a whole run: steps, steps per second, time left, and the newest return and costs.

    :param total: environment steps of the run.
    :param initial: environment steps that were taken before.
    """

    def __init__(self, total: int, initial: int) -> None:
        self._bar = tqdm(total=total, initial=initial, unit="step", dynamic_ncols=True, smoothing=0.05)

    def show(
        self,
        env_step: int,
        stats: CostCollectStats,
        cost_limit: Sequence[float],
        cost_names: Sequence[str] | None = None,
        limit_unit: LimitUnit = "episode",
    ) -> None:
        """Move the bar to an environment step, and show the means of the newest episodes."""
        self._bar.update(env_step - self._bar.n)
        if stats.n_collected_episodes:
            means = stats.limited_costs(limit_unit).mean(0)
            costs = ",".join(labelled([f"{x:.1f}" for x in means], cost_names))
            limits = ",".join(f"{x:g}" for x in cost_limit)
            cost = f"{cost_word(limit_unit)} {costs}"
            self._bar.set_postfix_str(f"return {stats.returns.mean():.1f}, {cost}, limit {limits}")

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
