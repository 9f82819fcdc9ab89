"""The base of the trainers: costs, feasible selection, curves over environment steps, saved states."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tianshou.data import InfoStats
from tianshou.policy import BasePolicy
from tianshou.policy.base import TrainingStats
from tianshou.trainer import BaseTrainer
from tianshou.utils import BaseLogger

from fsrl_ext.cost_names import LimitUnit
from fsrl_ext.data import AheadCollector, CostCollector, CostCollectStats
from fsrl_ext.data.sizes import ceil_div, round_up
from fsrl_ext.errors import NonFiniteError, checked
from fsrl_ext.policy.base import CostEntry
from fsrl_ext.trainer.curves import training_curves
from fsrl_ext.trainer.episode_lengths import EpisodeLengths
from fsrl_ext.trainer.player import EpisodePlayer, parameters_of
from fsrl_ext.trainer.progress import ProgressBar
from fsrl_ext.trainer.seeds import renewed_seeds, seed_range
from fsrl_ext.trainer.selection import Evaluation
from fsrl_ext.trainer.selection_episodes import PendingSelection, SelectionEpisodes


class CostTrainer(BaseTrainer):
    """Base of the trainers for policies with a cost limit, on Tianshou's loop.

    It differs from the base class in six points:

    - an epoch is the time between two selections; the step budget ``max_epoch * step_per_epoch`` is met to
      within one vector step;
    - selection is by feasibility first (:mod:`fsrl_ext.trainer.selection`), on fixed seeds, and the best
      checkpoint is handed to ``save_best_fn``;
    - every curve is logged over environment steps, losses as means over a collect cycle;
    - there is one progress bar for the whole run: return, cost, limit, steps per second, time left;
    - an equal trainer goes on from what :meth:`state_dict` returns between two cycles;
    - a warning comes where training episodes do not last as long as the policy assumes
      (:mod:`fsrl_ext.trainer.episode_lengths`).

    :param policy: a policy with ``cost_limit``, a tuple with one number per cost, and with ``limit_unit``
        unless the limits are on sums of costs.
    :param train_collector: collects ``step_per_collect`` steps at a time.
    :param test_collector: runs the selection episodes; ``None`` for no selection. An
        :class:`~fsrl_ext.trainer.player.EpisodePlayer` plays the episodes of a selection while training goes
        on. The verdict on them takes effect at the next selection, that on the last one at the end of
        training, however long they take.
    :param max_epoch: number of epochs.
    :param step_per_epoch: environment steps of an epoch, rounded up to whole vector steps.
    :param step_per_collect: environment steps collected between updates.
    :param batch_size: transitions of a gradient step.
    :param selection_seeds: one environment seed for each selection episode.
    :param selection_min_episodes: after so many episodes at least, a selection ends early if it is clear that
        the policy will not be the best (:func:`~fsrl_ext.trainer.selection.is_clearly_not_best`); ``None``
        plays all of them.
    :param on_collect_end: called after every collect, when it is counted, before the policy learns from it.
    :param on_cycle_end: called before the first collect, and after the updates that follow every collect. At
        these moments :meth:`state_dict` is complete.
    :param on_selection: called with every selection's :class:`Evaluation`, after the best was updated.
    :param on_candidate: called at the moment of every selection whose verdict comes later, that is, with an
        :class:`~fsrl_ext.trainer.player.EpisodePlayer`. At these moments :meth:`state_dict` is complete.
    :param save_best_fn: called with the policy whenever it is the best so far. If the verdict comes later,
        the policy has changed since, and what is to be saved was there in ``on_candidate``.
    :param cost_limit_schedule: maps environment steps to the limits, one per cost, that the policy trains
        with from then on; ``None`` leaves the limits alone. Episodes and checkpoints are judged by the limits
        that the policy has at the start.
    :param train_seeds: seeds of the training environments' first episodes; ``None`` leaves them alone. If the
        collector is replayable, its environments get other seeds, which follow from these, every
        :attr:`epochs_per_renewal` epochs.
    :param action_repeat: environment steps that a transition of the collectors lasts for; all numbers of
        steps of this class are environment steps.
    :param cost_names: names of the costs ``[C]``, which logs and the progress bar have in place of numbers.
    :param logger: any Tianshou logger.
    :param show_progress: whether to draw the progress bar.
    :param kwargs: further arguments of Tianshou's trainer.
    :raises ValueError: a number is too small.
    """

    warmup_steps = 0
    epochs_per_renewal = 4
    """How often a replayable collector's environments are seeded anew, in epochs.

    Seeding bullet-safety-gym's environments takes as long as up to 150 steps; on the other hand a run that is
    resumed repeats every step since the last seeds."""

    train_collector: CostCollector | AheadCollector  # type: ignore[assignment]

    @checked(
        at_least_one=(
            "max_epoch",
            "step_per_epoch",
            "step_per_collect",
            "batch_size",
            "selection_min_episodes",
            "action_repeat",
        ),
        at_least_zero=("selection_seeds", "train_seeds"),
        own=("policy", "train_collector"),
    )
    def __init__(
        self,
        *,
        policy: BasePolicy,
        train_collector: CostCollector | AheadCollector,
        test_collector: CostCollector | EpisodePlayer | None,
        max_epoch: int,
        step_per_epoch: int,
        step_per_collect: int,
        batch_size: int | None,
        selection_seeds: Sequence[int] | None = None,
        selection_min_episodes: int | None = None,
        on_collect_end: Callable[[], None] | None = None,
        on_cycle_end: Callable[[], None] | None = None,
        on_selection: Callable[[Evaluation], None] | None = None,
        on_candidate: Callable[[], None] | None = None,
        save_best_fn: Callable[[BasePolicy], None] | None = None,
        cost_limit_schedule: Callable[[int], tuple[float, ...]] | None = None,
        train_seeds: Sequence[int] | None = None,
        action_repeat: int = 1,
        cost_names: Sequence[str] | None = None,
        logger: BaseLogger | None = None,
        show_progress: bool = True,
        **kwargs: Any,
    ) -> None:
        if not isinstance(policy, BasePolicy) or not isinstance(getattr(policy, "cost_limit", None), tuple):
            raise TypeError(
                "policy must be one with a cost limit, such as those of fsrl_ext.policy, "
                f"got {type(policy).__name__}"
            )
        if not callable(getattr(train_collector, "state_dict", None)):
            raise TypeError(
                "train_collector must be a CostCollector, an AheadCollector or a MetaCollector, "
                f"got {type(train_collector).__name__}"
            )
        seeds = list(seed_range("selection", 10) if selection_seeds is None else selection_seeds)
        super().__init__(
            policy=policy,
            train_collector=train_collector,  # type: ignore[arg-type]
            test_collector=test_collector,  # type: ignore[arg-type]
            max_epoch=max_epoch,
            # Whole vector steps only, or every epoch would end with a cycle of a few steps.
            step_per_epoch=round_up(step_per_epoch, train_collector.env_num * action_repeat),
            step_per_collect=step_per_collect,
            episode_per_test=len(seeds),
            batch_size=batch_size,
            save_best_fn=save_best_fn,
            logger=logger,
            test_in_train=False,
            verbose=False,
            show_progress=show_progress,
            **kwargs,
        )
        num_costs = len(self._policy_limit())
        if cost_names is not None and len(cost_names) != num_costs:
            raise ValueError(f"cost_names must be {num_costs}, one per cost, got {len(cost_names)}")
        self.cost_names = None if cost_names is None else tuple(cost_names)
        self._cost_keys: Sequence[str | int] = self.cost_names or range(num_costs)
        self._selections = SelectionEpisodes(test_collector, seeds, selection_min_episodes)
        self.train_seeds = None if train_seeds is None else list(train_seeds)
        self.cost_limit_schedule = cost_limit_schedule
        self._scheduled_from = self._policy_limit() if cost_limit_schedule is not None else None
        self.best: Evaluation | None = None
        self.last: Evaluation | None = None
        self.num_train_episodes_above = 0
        self._on_collect_end = on_collect_end
        self._on_cycle_end = on_cycle_end
        self._on_selection = on_selection
        self._on_candidate = on_candidate
        self._in_epoch = False
        self._steps_before = 0
        self._max_step_per_collect = step_per_collect
        self.action_repeat = action_repeat
        self._bar: ProgressBar | None = None
        self._resumed = False
        self._lengths = EpisodeLengths(policy, train_collector.env_num)

    @property
    def cost_limit(self) -> tuple[float, ...]:
        """The limits that episodes and checkpoints are judged by, one per cost."""
        return self._scheduled_from or self._policy_limit()

    @property
    def limit_unit(self) -> LimitUnit:
        """The unit of these limits."""
        unit: LimitUnit = getattr(self.policy, "limit_unit", "episode")
        return unit

    def _policy_limit(self) -> tuple[float, ...]:
        return self.policy.cost_limit  # type: ignore[return-value]

    @property
    def step_budget(self) -> int:
        """Environment steps of the whole run."""
        return self.max_epoch * self.step_per_epoch

    @property
    def share_above_limit(self) -> float:
        """Share of the training episodes so far in which any cost exceeded its limit."""
        return self.num_train_episodes_above / max(self.env_episode, 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that an equal trainer goes on from: plain numbers and arrays.

        It has the counters, the best evaluation, the selection whose verdict is to come, and the collector's
        state.
        To be called in ``on_cycle_end`` or ``on_candidate``, after the verdict on the last selection, and in
        ``on_selection`` if verdicts come at once. The policy's own state, its optimisers and the global
        random numbers are not part of it. At the last selection the collector's state is ``None``, because a
        training that is over needs no more data.
        """
        counters = {name: getattr(self, name) for name in self._counters()}
        if self._in_epoch:  # Tianshou counts an epoch at its start; here are those that have ended
            counters["epoch"] -= 1
            counters["iter_num"] -= 1
        over = counters["epoch"] >= self.max_epoch
        return {
            "counters": counters,
            "best": None if self.best is None else asdict(self.best),
            "pending": None if self._selections.pending is None else asdict(self._selections.pending),
            "collector": None if over else self.train_collector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Let the next :meth:`run` go on from what :meth:`state_dict` returned.

        :return: whether the environments are where they were; see the collector.
        """
        self.reset(reset_collectors=False)
        for name in self._counters():
            setattr(self, name, state["counters"][name])
        best = state["best"]
        self.best = None if best is None else Evaluation(**best)
        pending = state.get("pending")  # states of earlier versions have none
        if pending is not None:
            self._begin(PendingSelection(**pending))
        self._steps_before = self.env_step - self.epoch * self.step_per_epoch
        self._resumed = True
        collector = state["collector"]
        return collector is None or self.train_collector.load_state_dict(collector)

    def _counters(self) -> tuple[str, ...]:
        """The names of the attributes that a run goes on from."""
        return (
            *("epoch", "iter_num", "env_step", "env_episode", "_gradient_step", "num_train_episodes_above"),
            *("last_rew", "last_len", "best_epoch", "best_reward", "best_reward_std", "best_score"),
        )

    def reset(self, reset_collectors: bool = True, reset_buffer: bool = False) -> None:
        """Start from zero, or from the state given to :meth:`load_state_dict`; see Tianshou's trainer."""
        if self._resumed:
            self._resumed = False
            self.start_time = time.time()
            return
        self._start_anew(reset_collectors, reset_buffer)

    def _start_anew(self, reset_collectors: bool, reset_buffer: bool) -> None:
        # The base class would test here, on seeds of its own, and save that policy as the best.
        test_collector, self.test_collector = self.test_collector, None
        save_best_fn, self.save_best_fn = self.save_best_fn, None
        try:
            super().reset(reset_collectors=reset_collectors, reset_buffer=reset_buffer)
        finally:
            self.test_collector, self.save_best_fn = test_collector, save_best_fn
        if reset_collectors and self.train_seeds is not None:
            self.train_collector.reset_env(gym_reset_kwargs={"seed": self.train_seeds})
        self._selections.finish()  # without a verdict
        self.best = self.last = None
        self.env_episode = self.num_train_episodes_above = 0
        self._lengths = EpisodeLengths(self.policy, self.train_collector.env_num)
        self._in_epoch, self._steps_before = False, 0
        self._close_bar()

    def run(self, reset_collectors: bool = True, reset_buffer: bool = False) -> InfoStats:
        """Train to the end of the budget; see Tianshou's trainer."""
        try:
            return super().run(reset_collectors=reset_collectors, reset_buffer=reset_buffer)
        finally:
            self._close_bar()

    def __next__(self) -> Any:
        if self._bar is None and self.show_progress:
            self._bar = ProgressBar(total=self.step_budget, initial=self.env_step)
        # The base class draws a bar for every epoch and every update; there is one for the run instead.
        show, self.show_progress = self.show_progress, False
        try:
            if self.iter_num == 0:
                self._end_cycle()
            if self.epoch >= self.max_epoch:  # a state from before the last verdict
                self._join()
            return super().__next__()
        finally:
            self.show_progress = show

    def training_step(self) -> tuple[Any, TrainingStats | None, bool]:
        """Collect and learn once; see Tianshou's trainer."""
        self._in_epoch = True
        if self._steps_before:
            # The base class counts the steps of an epoch by what this method returns. An epoch that goes on
            # from a saved state had these steps before.
            before, self._steps_before = self._steps_before, 0
            return CostCollectStats(n_collected_steps=before), None, False
        step = super().training_step()
        self._end_cycle()
        return step

    def _end_cycle(self) -> None:
        if self._on_cycle_end is not None:
            self._on_cycle_end()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @contextlib.contextmanager
    def _naming_the_step(self, *, gradient: bool = False) -> Iterator[None]:
        """Let a :class:`NonFiniteError` of the block say at which step of the training it came.

        :param gradient: whether the block takes gradient steps.
        """
        try:
            yield
        except NonFiniteError as error:
            where = f"environment step {self.env_step}"
            if gradient:
                where = f"gradient step {self._gradient_step + 1}, {where}"
            raise NonFiniteError(f"{error} ({where})") from error

    def _collect_training_data(self) -> CostCollectStats:
        """Collect the next cycle and count it."""
        if self.train_fn is not None:
            self.train_fn(self.epoch, self.env_step)
        if self.cost_limit_schedule is not None:
            self.policy.cost_limit = self.cost_limit_schedule(self.env_step)  # type: ignore[assignment]
        with self._naming_the_step():
            stats = self._collect_cycle()
        self.env_step += stats.n_collected_steps * self.action_repeat
        self.env_episode += stats.n_collected_episodes
        self.num_train_episodes_above += stats.num_above(self.cost_limit, self.limit_unit)
        self._lengths.see(
            stats, assumed=self._assumes_full_length(stats), last=self.env_step >= self.step_budget
        )
        if self.action_repeat > 1:
            stats.multiply_steps(self.action_repeat)
        if stats.n_collected_episodes:
            self.last_rew, self.last_len = float(stats.returns.mean()), float(stats.lens.mean())
            curves = training_curves(stats, self.cost_limit, self.limit_unit, self.cost_names)
            self.logger.log_train_data(curves, self.env_step)
        if self._bar is not None:
            self._bar.show(self.env_step, stats, self.cost_limit, self.cost_names, self.limit_unit)
        if self._on_collect_end is not None:
            self._on_collect_end()
        return stats

    def _collect_cycle(self) -> CostCollectStats:
        """Collect the steps up to the next update, which never reach past the end of the epoch."""
        collector = self.train_collector
        transitions, random = self._request(self.env_step)
        stats = collector.collect(n_step=transitions, random=random)
        next_step = self.env_step + transitions * self.action_repeat
        if isinstance(collector, AheadCollector) and collector.ahead and next_step < self.step_budget:
            collector.start(*self._request(next_step))
        return stats

    def _assumes_full_length(self, stats: CostCollectStats) -> bool:
        """Whether learning from a collect assumes full episodes, beside what the policy's config says."""
        return False

    def _request(self, env_step: int) -> tuple[int, bool]:
        """The transitions of the collect that begins at a step, and whether its actions are random."""
        due = self.step_per_epoch - env_step % self.step_per_epoch
        transitions = ceil_div(min(self._max_step_per_collect, due), self.action_repeat)
        return round_up(transitions, self.train_collector.env_num), env_step < self.warmup_steps

    def _log_update(self, stats: TrainingStats, metrics: dict[str, float]) -> TrainingStats:
        """Log the means of a cycle's gradient steps at the environment step; returns ``stats`` with them."""
        if self.cost_names is not None:
            names = self.cost_names
            metrics = {k.named(names) if isinstance(k, CostEntry) else k: x for k, x in metrics.items()}
        stats.smoothed_loss = metrics
        self.logger.log_update_data({**metrics, "gradient_step": self._gradient_step}, self.env_step)
        return stats

    def test_step(self) -> tuple[CostCollectStats | None, bool]:  # type: ignore[override]
        """Run the selection episodes and keep the better policy, at once or as soon as they are played."""
        self._in_epoch = False
        if self._selections.come_later:
            if self._join():
                return None, True
            self._begin(
                PendingSelection(
                    env_step=self.env_step, epoch=self.epoch, parameters=parameters_of(self.policy)
                )
            )
            self._renew_seeds()
            if self._on_candidate is not None:
                self._on_candidate()
            return None, self.env_step >= self.step_budget and self._join()
        evaluation = self._selections.play(
            env_step=self.env_step,
            cost_limit=self.cost_limit,
            limit_unit=self.limit_unit,
            best=self.best,
            show_progress=self._bar is not None,
        )
        self._renew_seeds()
        return None, self._judge(evaluation, self.epoch)

    def _begin(self, candidate: PendingSelection) -> None:
        """Begin to play the episodes of a selection."""
        self._selections.begin(
            candidate,
            cost_limit=self.cost_limit,
            limit_unit=self.limit_unit,
            best=self.best,
            show_progress=self.show_progress or self._bar is not None,
        )

    def _join(self) -> bool:
        """Let the verdict on the last selection take effect, if it is to come; returns whether to stop."""
        played = self._selections.finish()
        if played is None:
            return False
        candidate, evaluation = played
        return self._judge(evaluation, candidate.epoch)

    def _judge(self, evaluation: Evaluation, epoch: int) -> bool:
        """Keep the better policy; returns whether to stop.

        :param epoch: after which the policy was tested.
        """
        self.last = evaluation
        if self.last.is_better_than(self.best):
            self.best, self.best_epoch = self.last, epoch
            self.best_reward = self.best_score = self.last.return_mean
            self.best_reward_std = float(self.last.returns.std())
            if self.save_best_fn is not None:
                self.save_best_fn(self.policy)
        self.logger.log_test_data(
            {
                "return": self.last.return_mean,
                "cost": dict(zip(self._cost_keys, self.last.cost_mean.tolist(), strict=True)),
                "feasible": float(self.last.feasible),
            },
            self.last.env_step,
        )
        if self._on_selection is not None:
            self._on_selection(self.last)
        return self.stop_fn is not None and self.stop_fn(self.best_reward)

    def _renew_seeds(self) -> None:
        collector = self.train_collector
        if self.train_seeds is None or not collector.replayable or self.epoch % self.epochs_per_renewal:
            return
        collector.renew_seeds(renewed_seeds(self.train_seeds[0], self.epoch, collector.env_num))
