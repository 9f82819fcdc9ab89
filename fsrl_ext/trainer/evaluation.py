"""Episodes on given seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tianshou.policy.base import policy_within_training_step

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.data import CostCollector
from fsrl_ext.data.randomness import private_randomness
from fsrl_ext.errors import checked
from fsrl_ext.trainer.progress import progress
from fsrl_ext.trainer.selection import Evaluation, is_clearly_not_best


@checked(at_least_zero=("env_step", "seeds"), at_least_one=("min_episodes",))
def evaluate_policy(
    collector: CostCollector,
    seeds: Sequence[int],
    *,
    cost_limit: tuple[float, ...],
    limit_unit: LimitUnit = "episode",
    env_step: int = 0,
    stochastic: bool = False,
    show_progress: bool = False,
    what: str = "evaluation",
    best: Evaluation | None = None,
    min_episodes: int | None = None,
    on_group_end: Callable[[], None] | None = None,
) -> Evaluation:
    """Run one episode for each seed with the collector's policy.

    Episodes run in groups of the collector's number of environments. What an environment does depends on its
    own seed, not on the group. Result ``i`` is the episode of seed ``i``, whenever the episode ended, so two
    policies are compared episode by episode if they play the same seeds.

    :param collector: its buffer is cleared.
    :param seeds: one environment seed per episode, ``E`` in total.
    :param cost_limit: one number per cost.
    :param limit_unit: unit of the limits. For ``"discounted"``, and for costs in both units, the collector
        needs the costs' ``discount``.
    :param env_step: noted in the result.
    :param stochastic: sample actions instead of taking the deterministic ones. All episodes of a group sample
        from one stream.
    :param show_progress: whether to show on a terminal how many episodes were played.
    :param what: what the progress bar begins with.
    :param best: the checkpoint that the policy would have to replace.
    :param min_episodes: after so many episodes at least, the others are left out if it is clear that the
        policy will not replace ``best`` (:func:`~fsrl_ext.trainer.selection.is_clearly_not_best`); ``None``
        plays all.
    :param on_group_end: called after each group, whose environment ``k`` has played the group's seed ``k``.
    :return: returns ``[E]`` and costs ``[E, C]`` of the episodes that were played, in the order of the seeds.
    :raises ValueError: there are no seeds, the episodes do not fill whole groups, or the limits need
        discounted costs and the collector does not count them.
    """
    num_envs = collector.env_num
    if not seeds or len(seeds) % num_envs:
        raise ValueError(f"seeds must be a multiple of the {num_envs} environments, got {len(seeds)}")
    evaluation: Evaluation | None = None
    with policy_within_training_step(collector.policy, enabled=stochastic), private_randomness(seeds[0]):
        groups = [list(seeds[start : start + num_envs]) for start in range(0, len(seeds), num_envs)]
        for group in progress(groups, what, total=len(seeds), show=show_progress):
            collector.reset(gym_reset_kwargs={"seed": group})
            stats = collector.collect(n_episode=len(group))
            # A collect lists episodes as they finish; its environments are in the order of the seeds.
            order = np.argsort(stats.env_ids)
            assert np.array_equal(stats.env_ids[order], np.arange(num_envs)), "one episode per environment"
            newest = Evaluation.of_collect(
                stats,
                order=order,
                env_step=env_step,
                cost_limit=cost_limit,
                limit_unit=limit_unit,
                seeds=tuple(int(seed) for seed in group),
            )
            evaluation = newest if evaluation is None else evaluation.followed_by(newest)
            if on_group_end is not None:
                on_group_end()
            played = len(evaluation.returns)
            if min_episodes is not None and played >= min_episodes and is_clearly_not_best(evaluation, best):
                break
    assert evaluation is not None
    return evaluation
