"""The progress bar of a training run."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from fsrl_ext.data import CostCollectStats


class ProgressBar:
    """One bar for a whole run: steps, steps per second, time left, and the newest return and costs.

    :param total: environment steps of the run.
    :param initial: environment steps that were taken before.
    """

    def __init__(self, total: int, initial: int) -> None:
        self._bar = tqdm(total=total, initial=initial, unit="step", dynamic_ncols=True, smoothing=0.05)

    def show(self, env_step: int, stats: CostCollectStats, cost_limit: Sequence[float]) -> None:
        """Move the bar to an environment step, and show the means of the newest episodes."""
        self._bar.update(env_step - self._bar.n)
        if stats.n_collected_episodes:
            costs = ",".join(f"{x:.1f}" for x in stats.mean_costs)
            limits = ",".join(f"{x:g}" for x in cost_limit)
            self._bar.set_postfix_str(f"return {stats.returns.mean():.1f}, cost {costs}, limit {limits}")

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
