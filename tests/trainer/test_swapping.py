"""Parts of Tianshou in place of ours, and ours in place of Tianshou's (docs/swapping_parts.md)."""

import csv
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.exploration import OUNoise
from tianshou.policy import DDPGPolicy
from tianshou.trainer import OffpolicyTrainer, OnpolicyTrainer
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import Actor, Critic
from torch.optim.lr_scheduler import ExponentialLR
from toys.envs import LineEnv
from toys.policies import build
from toys.training import collector_for

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.data.randomness import seed_globals
from fsrl_ext.policy import DDPGLagPolicy
from fsrl_ext.trainer import CostOffpolicyTrainer

PAGE = (Path(__file__).parents[2] / "docs" / "swapping_parts.md").read_text()
COMMON = {
    "max_epoch": 2,
    "step_per_epoch": 80,
    "step_per_collect": 40,
    "batch_size": 32,
    "show_progress": False,
}


def make_envs(count=4, limit=20):
    return DummyVectorEnv([lambda: gym.wrappers.TimeLimit(LineEnv(), limit)] * count)


def stock_policy():
    """Return Tianshou's DDPG for the line."""
    torch.manual_seed(0)
    actor = Actor(Net(2, hidden_sizes=[16]), 1)
    critic = Critic(Net(2, 1, hidden_sizes=[16], concat=True))
    return DDPGPolicy(
        actor=actor,
        actor_optim=torch.optim.Adam(actor.parameters(), lr=3e-3),
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=3e-3),
        action_space=gym.spaces.Box(-1, 1, (1,)),
    )


@pytest.mark.parametrize(
    ("name", "trainer", "own"),
    [
        ("ddpg", OffpolicyTrainer, {"update_per_step": 0.1}),
        ("ppo", OnpolicyTrainer, {"repeat_per_collect": 1}),
    ],
)
def test_a_stock_trainer_moves_our_multipliers(name, trainer, own):
    policy = build(name, cost_limit=1.0)
    assert float(policy.multipliers.values[0]) == 0.0
    trainer(
        policy=policy,
        train_collector=collector_for(policy, env=LineEnv),
        test_collector=CostCollector(policy, make_envs()),
        episode_per_test=4,
        verbose=False,
        **own,
        **COMMON,
    ).run()
    assert float(policy.multipliers.values[0]) > 0.0


def test_our_trainer_selects_a_stock_policy_by_its_costs():
    policy = stock_policy()
    policy.cost_limit = (1.0,)
    trainer = CostOffpolicyTrainer(
        policy=policy,
        train_collector=CostCollector(policy, make_envs(), exploration_noise=True),
        test_collector=CostCollector(policy, make_envs(2)),
        selection_seeds=range(4),
        update_per_step=0.1,
        **COMMON,
    )
    trainer.run()
    assert trainer.best is not None
    assert len(trainer.best.returns) == 4
    assert not trainer.best.feasible  # an untrained policy costs about 10
    assert trainer.share_above_limit == 1.0


def test_a_stock_policy_trains_with_our_collector_in_a_stock_trainer():
    policy = stock_policy()
    before = [x.clone() for x in policy.actor.parameters()]
    collector = CostCollector(policy, make_envs(), exploration_noise=True)
    test_collector = CostCollector(policy, make_envs())
    OffpolicyTrainer(
        policy=policy,
        train_collector=collector,
        test_collector=test_collector,
        episode_per_test=4,
        update_per_step=0.1,
        verbose=False,
        **COMMON,
    ).run()
    assert any(not torch.equal(x, y) for x, y in zip(before, policy.actor.parameters(), strict=True))
    assert len(collector.buffer.episodes.costs) > 0


class TestStockCollector:
    def test_our_policies_act_in_it(self):
        stats = Collector(build("cvpo"), make_envs()).collect(n_episode=4, reset_before_collect=True)
        assert np.all(stats.lens == 20)

    def test_our_buffers_say_that_it_reads_no_costs(self):
        collector = Collector(build("ddpg"), make_envs(), CostVectorReplayBuffer(400, 4))
        with pytest.raises(ValueError, match="the batch has no `cost`: collect with fsrl_ext"):
            collector.collect(n_step=8, reset_before_collect=True)

    def test_our_trainers_refuse_it(self):
        policy = build("ddpg")
        with pytest.raises(TypeError, match="train_collector must be a CostCollector"):
            CostOffpolicyTrainer(
                policy=policy,
                train_collector=Collector(policy, make_envs(), VectorReplayBuffer(400, 4)),
                test_collector=None,
                update_per_step=0.1,
                **COMMON,
            )


def test_a_schedule_of_learning_rates_is_stepped_after_each_update():
    policy = build("ddpg")
    policy.lr_scheduler = ExponentialLR(policy.actor_optim, 0.9)
    first = policy.actor_optim.param_groups[0]["lr"]
    trainer = CostOffpolicyTrainer(
        policy=policy,
        train_collector=collector_for(policy, env=LineEnv),
        test_collector=None,
        update_per_step=0.1,
        **COMMON,
    )
    trainer.run()
    steps = trainer._gradient_step
    assert steps == 16
    assert policy.actor_optim.param_groups[0]["lr"] == pytest.approx(first * 0.9**steps)


class Wandering(DDPGLagPolicy):
    """Explores by an Ornstein-Uhlenbeck process."""

    def _set_up(self):
        super()._set_up()
        self.noise = OUNoise(sigma=0.5, dt=1.0)

    def exploration_noise(self, act, batch):
        return np.clip(act + self.noise(act.shape), -1.0, 1.0)


def test_noise_of_tianshou_explores_in_our_collector():
    plain = build("ddpg", exploration_std=0.0)
    policy = Wandering(
        actor=plain.actor,
        actor_optim=plain.actor_optim,
        critic=plain.critic,
        critic_optim=plain.critic_optim,
        action_space=plain.action_space,
        cost_limit=5.0,
        max_episode_steps=20,
        exploration_std=0.0,
    )
    seed_globals(0)
    spreads = []
    for noise in (False, True):
        collector = CostCollector(policy, make_envs(), exploration_noise=noise)
        collector.collect(n_step=80, reset_before_collect=True)
        spreads.append(float(collector.buffer.act[collector.buffer.sample_indices(0)].std()))
    assert spreads[1] > 5 * spreads[0]


def test_the_logger_of_the_page_writes_what_a_training_logs(tmp_path):
    (block,) = re.findall(r"(import csv\n.*?)\nlogger = CSVLogger", PAGE, re.DOTALL)
    names = {"np": np}
    exec(block, names)
    policy = build("ddpg")
    logger = names["CSVLogger"](tmp_path / "training.csv")
    CostOffpolicyTrainer(
        policy=policy,
        train_collector=collector_for(policy, env=LineEnv),
        test_collector=CostCollector(policy, make_envs(2)),
        selection_seeds=range(2),
        update_per_step=0.1,
        logger=logger,
        **COMMON,
    ).run()
    logger.finalize()
    with (tmp_path / "training.csv").open() as file:
        rows = list(csv.reader(file))
    written = {(scope, name) for _, scope, name, _ in rows}
    assert {("test", "return"), ("test", "cost/0"), ("update", "loss/actor")} <= written
    assert any(scope == "train" and name.startswith("costs_stat/0") for scope, name in written)
    assert {step for step, scope, *_ in rows if scope == "test"} == {"80", "160"}
