"""The on-policy trainer makes one update per whole collect, and empties the buffer after each."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.data import Batch
from tianshou.env import DummyVectorEnv
from toys.envs import LineEnv
from toys.policies import T, build
from toys.recorder import Recorder

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.errors import NonFiniteError
from fsrl_ext.policy import PPOLagConfig
from fsrl_ext.trainer import CostOnpolicyTrainer


def policy_for():
    return build("ppo", hidden=(16,), initial_std=0.6, gamma=PPOLagConfig().gamma)


def collector_for(policy, size=80, **kwargs):
    envs = DummyVectorEnv([lambda: gym.wrappers.TimeLimit(LineEnv(**kwargs), T)] * 4)
    return CostCollector(policy, envs, CostVectorReplayBuffer(size, 4))


def trainer_for(policy, collector, **settings):
    return CostOnpolicyTrainer(
        **{
            "policy": policy, "train_collector": collector, "test_collector": collector_for(policy, 200),
            "max_epoch": 2, "step_per_epoch": 160, "step_per_collect": 80, "repeat_per_collect": 2,
            "batch_size": 32, "selection_seeds": (1, 2, 3, 4), "train_seeds": (5, 6, 7, 8),
            "show_progress": False, **settings,
        }
    )  # fmt: skip


def test_one_update_per_collect_and_an_empty_buffer():
    policy, recorder, sizes = policy_for(), Recorder(), []
    learn = policy.learn
    policy.learn = lambda batch, **kwargs: sizes.append(len(batch.obs)) or learn(batch, **kwargs)
    collector = collector_for(policy)
    trainer = trainer_for(policy, collector, logger=recorder)
    trainer.run()
    assert sizes == [80, 80, 80, 80]
    assert len(collector.buffer) == 0
    assert trainer.env_step == trainer.step_budget == 320
    assert trainer._gradient_step == 4
    assert recorder.steps("update") == [80, 160, 240, 320]
    assert recorder.steps("test") == [160, 320]
    assert trainer.best is not None


def test_an_epoch_holds_whole_collects():
    policy = policy_for()
    # 70 steps are not whole vector steps of four environments, and 100 steps are not whole collects.
    trainer = trainer_for(policy, collector_for(policy), step_per_collect=70, step_per_epoch=100)
    assert trainer.step_per_collect == 72
    assert trainer.step_per_epoch == 144
    trainer.run()
    assert trainer.env_step == 288


def test_what_lies_in_the_buffer_is_not_learnt_from():
    policy, sizes = policy_for(), []
    learn = policy.learn
    policy.learn = lambda batch, **kwargs: sizes.append(len(batch.obs)) or learn(batch, **kwargs)
    collector = collector_for(policy, size=200)
    collector.reset()
    collector.collect(n_step=40, random=True)
    trainer_for(policy, collector, max_epoch=1).run()
    assert sizes == [80, 80]


def test_the_same_seed_gives_the_same_policy():
    def run():
        policy = policy_for()
        torch.manual_seed(3)
        trainer_for(policy, collector_for(policy)).run()
        return policy(Batch(obs=np.ones((1, 2), np.float32), info={})).act.item()

    assert run() == run()


def test_unusable_numbers_are_named():
    policy = policy_for()
    with pytest.raises(ValueError, match="must hold the 160 steps of a collect, got a size of 80"):
        trainer_for(policy, collector_for(policy), step_per_collect=160)
    with pytest.raises(ValueError, match="repeat_per_collect"):
        trainer_for(policy, collector_for(policy), repeat_per_collect=0)
    with pytest.raises(ValueError, match="batch_size"):
        trainer_for(policy, collector_for(policy), batch_size=0)
    assert trainer_for(policy, collector_for(policy), batch_size=None).batch_size is None


def test_a_loss_that_is_not_finite_says_where():
    policy = policy_for()
    with torch.no_grad():
        policy.critic.layers[0].weight.fill_(float("nan"))
    before = [x.clone() for x in policy.actor.parameters()]
    with pytest.raises(NonFiniteError, match="environment step 80"):
        trainer_for(policy, collector_for(policy)).run()
    assert all(torch.equal(x, y) for x, y in zip(before, policy.actor.parameters(), strict=True))
