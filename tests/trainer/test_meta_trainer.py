"""Meta-training takes whole meta-iterations, logs the adaptations and survives interruptions."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.env import DummyVectorEnv
from toys.envs import AimEnv
from toys.meta import ENVS, acting, build, collector_for, theta
from toys.policies import tensors
from toys.recorder import Recorder
from toys.tasks import FAMILY_HORIZON as T

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.errors import NonFiniteError
from fsrl_ext.trainer import MetaTrainer

STEPS = 50


def trainer_for(policy, *, collect=STEPS, num_costs=1, **settings):
    def test_env():
        return gym.wrappers.TimeLimit(AimEnv(0.5, num_costs), T)

    tests = CostCollector(
        policy, DummyVectorEnv([test_env] * 2), CostVectorReplayBuffer(40, 2, num_costs=num_costs)
    )
    cycle = 2 * (policy.config.inner_steps + 1) * collect
    return MetaTrainer(
        **{
            "policy": policy,
            "train_collector": collector_for(policy, steps=collect, num_costs=num_costs),
            "test_collector": tests,
            "draw_tasks": lambda count, start: [0.1 * ((start + i) % 8 + 1) for i in range(count)],
            "env_seeds": lambda iteration, count: list(range(1000 * iteration, 1000 * iteration + count)),
            "max_epoch": 2, "step_per_epoch": 2 * cycle, "selection_seeds": (1, 2), "show_progress": False,
            **settings,
        }
    )  # fmt: skip


def test_epochs_hold_whole_meta_iterations_and_the_budget_is_met():
    policy, recorder = build(), Recorder()
    trainer = trainer_for(policy, logger=recorder)
    trainer.run()
    assert trainer.env_step == trainer.step_budget == 4 * 2 * 3 * STEPS
    assert trainer._gradient_step == trainer.iteration == 4
    assert recorder.steps("update") == [300, 600, 900, 1200]
    assert recorder.steps("test") == [600, 1200]
    assert trainer.best is not None
    # Only episodes of the adapted policies count as training episodes.
    assert trainer.env_episode == 4 * 2 * STEPS // T
    # 310 steps are no whole meta-iterations of 300.
    assert trainer_for(build(), step_per_epoch=310).step_per_epoch == 600


def test_tasks_and_seeds_never_repeat_and_start_anew_with_the_trainer():
    policy, drawn, started = build(), [], []
    trainer = trainer_for(policy, draw_tasks=lambda n, k: drawn.append((n, k)) or [0.3, 0.6][:n])
    start = trainer.train_collector.start
    trainer.train_collector.start = lambda task, seeds: started.append((task, *seeds)) or start(task, seeds)
    trainer.run()
    assert drawn == [(2, 0), (2, 2), (2, 4), (2, 6)]
    assert [row[0] for row in started] == [0.3, 0.6] * 4
    seeds = [seed for row in started for seed in row[1:]]
    assert len(seeds) == len(set(seeds)) == 4 * 2 * ENVS
    trainer.run()
    assert drawn[4:] == drawn[:4]
    assert started[8:] == started[:8]


def test_what_is_logged():
    policy, recorder = build(cost_limit=5.0), Recorder()
    trainer_for(policy, logger=recorder, max_epoch=1).run()
    (train, update) = (
        next(row[2] for row in recorder.rows if row[0] == kind) for kind in ("train", "update")
    )
    names = {name.removeprefix("update/") for name in update}
    wanted = {f"adaptation/{what}_{k}" for what in ("return", "cost", "above") for k in range(3)}
    wanted |= {
        "meta/fraction",
        "meta/kl",
        "meta/lambda",
        "meta/cosine",
        "constraint/multiplier",
        "constraint/surplus",
    }
    wanted |= {"constraint/episode_cost", "adaptation/corners", "adaptation/fraction", "gradient_step"}
    assert wanted <= names
    assert all(math.isfinite(x) for x in update.values())
    shares = [v for k, v in update.items() if "adaptation/share_" in k]
    assert sum(shares) == pytest.approx(1.0)
    # The training curve is about the adapted policies.
    found = {k.removeprefix("update/"): v for k, v in update.items()}
    assert train["returns_stat"]["mean"] == pytest.approx(found["adaptation/return_2"])
    assert found["constraint/episode_cost"] == pytest.approx(found["adaptation/cost_2"])


def test_several_costs_are_numbered():
    policy, recorder = build(num_costs=2, cost_limit=(5.0, math.inf)), Recorder()
    trainer_for(policy, num_costs=2, logger=recorder, max_epoch=1).run()
    logged = {k.removeprefix("update/"): v for k, v in recorder.rows[1][2].items()}
    assert logged["adaptation/cost_0_1"] == pytest.approx(logged["adaptation/cost_0_0"] / 2)


def test_collects_without_the_end_of_an_episode_are_trained_on():
    policy = build()
    trainer = trainer_for(policy, collect=ENVS * 4, max_epoch=1)
    trainer.run()  # Episodes last 10 steps of an environment, collects 4.
    assert trainer.env_step == 2 * 2 * 3 * ENVS * 4
    assert not torch.equal(theta(policy), theta(build()))


def test_a_limit_that_tightens_is_followed_once_per_meta_iteration():
    policy, seen = build(), []
    begin = policy.begin_task
    policy.begin_task = lambda record=False: seen.append(policy.cost_limit) or begin(record=record)
    trainer_for(policy, cost_limit_schedule=lambda step: (10.0 - step / 300,), max_epoch=1).run()
    assert sorted(set(seen), reverse=True) == [(10.0,), (9.0,)]


def test_the_same_seed_gives_the_same_meta_policy():
    def train():
        policy = build()
        torch.manual_seed(3)
        trainer_for(policy, max_epoch=1).run()
        return tensors(policy)

    first, second = train(), train()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_an_interruption_leaves_the_meta_policy_acting_and_no_half_tasks():
    policy = build()
    trainer = trainer_for(policy)
    learn, calls = policy.learn, []

    def interrupted(*args, **kwargs):
        calls.append(0)
        if len(calls) == 8:  # This is the last task of the second meta-iteration.
            raise KeyboardInterrupt
        return learn(*args, **kwargs)

    policy.learn = interrupted
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert torch.equal(acting(policy), theta(policy))
    with pytest.raises(RuntimeError, match="no task is open"):
        trainer.train_collector.collect()
    with pytest.raises(RuntimeError, match="meta_step needs finish_task before"):
        policy.meta_step()
    policy.learn = learn
    trainer.run()
    assert policy.normaliser.count == 300 + trainer.step_budget


def test_numbers_that_are_not_finite_say_where():
    policy = build()
    with torch.no_grad():
        policy.meta_critic.layers[0].weight.fill_(math.nan)
    before = theta(policy)
    with pytest.raises(NonFiniteError, match="environment step 0"):
        trainer_for(policy).run()
    assert torch.equal(theta(policy), before)
    assert np.isfinite(before.numpy()).all()
