"""Builds CPO on safety-gymnasium's SafetyPointGoal1-v0 by hand, in Tianshou's style.

python examples/mlp/point_goal_cpo.py --steps 2000000
"""

import argparse

import torch
from tianshou.env import DummyVectorEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import make, time_limit
from fsrl_ext.net import OnpolicyActor, ValueCritic
from fsrl_ext.policy import CPOPolicy
from fsrl_ext.trainer import CostOnpolicyTrainer, evaluate_policy, seed_range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="SafetyPointGoal1-v0")
    parser.add_argument("--cost-limit", type=float, default=25.0)
    parser.add_argument("--steps", type=int, default=2_000_000)
    parser.add_argument("--step-per-collect", type=int, default=20_000)
    parser.add_argument("--selections", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    env = make(args.task)
    obs_dim, act_dim = env.observation_space.shape[0], env.action_space.shape[0]
    train_envs = DummyVectorEnv([lambda: make(args.task) for _ in range(20)])
    test_envs = DummyVectorEnv([lambda: make(args.task) for _ in range(5)])

    # The actor has one standard deviation for all states; reward and cost have a value network each. The
    # actor needs no optimiser: its step is the solution of the constrained trust-region problem.
    critic = ValueCritic(obs_dim, hidden_sizes=(64, 64))
    policy = CPOPolicy(
        actor=OnpolicyActor(obs_dim, act_dim, hidden_sizes=(64, 64)),
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=1e-3),
        action_space=env.action_space,
        obs_dim=obs_dim,
        cost_limit=args.cost_limit,
        max_episode_steps=time_limit(env),
        kl_bound=0.01,
    )

    buffer = CostVectorReplayBuffer(args.step_per_collect + len(train_envs), len(train_envs))
    train_collector = CostCollector(policy, train_envs, buffer)
    test_collector = CostCollector(policy, test_envs)
    trainer = CostOnpolicyTrainer(
        policy=policy,
        train_collector=train_collector,
        test_collector=test_collector,
        max_epoch=args.selections,
        step_per_epoch=max(args.steps // args.selections, 1),
        step_per_collect=args.step_per_collect,
        repeat_per_collect=10,
        batch_size=256,
        selection_seeds=seed_range("selection", 5),
        train_seeds=seed_range("train", len(train_envs), run_seed=args.seed),
    )
    trainer.run()

    result = evaluate_policy(test_collector, seed_range("final", 5), cost_limit=policy.cost_limit)
    print(
        f"last policy: return {result.return_mean:.1f}, cost {result.cost_mean[0]:.1f}, "
        f"limit {args.cost_limit:g}; {trainer.share_above_limit:.0%} of training episodes above it"
    )


if __name__ == "__main__":
    main()
