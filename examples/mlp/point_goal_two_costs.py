"""Trains PPO-Lag on SafetyPointGoal2-v0 with a limit on hazards and another one on vases.

python examples/mlp/point_goal_two_costs.py --steps 1000000
"""

import argparse

import torch
from tianshou.env import DummyVectorEnv

from fsrl_ext.data import CostCollector, CostVectorReplayBuffer
from fsrl_ext.env import make, time_limit
from fsrl_ext.net import OnpolicyActor, ValueCritic
from fsrl_ext.policy import PPOLagPolicy
from fsrl_ext.trainer import CostOnpolicyTrainer, evaluate_policy, seed_range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="SafetyPointGoal2-v0")
    parser.add_argument("--costs", nargs="+", default=["hazards", "vases"])
    parser.add_argument("--cost-limits", nargs="+", type=float, default=[25.0, 25.0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--step-per-collect", type=int, default=20_000)
    parser.add_argument("--selections", type=int, default=50)
    parser.add_argument("--num-envs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    # info["cost"] then holds one number per name, in this order; "vases" is the sum of two costs.
    env = make(args.task, costs=args.costs)
    obs_dim, act_dim = env.observation_space.shape[0], env.action_space.shape[0]
    train_envs = DummyVectorEnv([lambda: make(args.task, costs=args.costs) for _ in range(args.num_envs)])
    test_envs = DummyVectorEnv([lambda: make(args.task, costs=args.costs) for _ in range(5)])

    actor = OnpolicyActor(obs_dim, act_dim, hidden_sizes=(64, 64))
    critic = ValueCritic(obs_dim, num_costs=len(args.costs), hidden_sizes=(64, 64))
    policy = PPOLagPolicy(
        actor=actor,
        actor_optim=torch.optim.Adam(actor.parameters(), lr=5e-4),
        critic=critic,
        critic_optim=torch.optim.Adam(critic.parameters(), lr=1e-3),
        action_space=env.action_space,
        obs_dim=obs_dim,
        cost_limit=args.cost_limits,
        max_episode_steps=time_limit(env),
    )

    buffer = CostVectorReplayBuffer(
        args.step_per_collect + len(train_envs), len(train_envs), num_costs=len(args.costs)
    )
    train_collector = CostCollector(policy, train_envs, buffer)
    test_collector = CostCollector(policy, test_envs, num_costs=len(args.costs))
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
        cost_names=args.costs,
    )
    trainer.run()

    result = evaluate_policy(test_collector, seed_range("final", 5), cost_limit=policy.cost_limit)
    print(f"last policy: return {result.return_mean:.1f}")
    for name, cost, limit in zip(args.costs, result.cost_mean, args.cost_limits, strict=True):
        print(f"{name}: cost {cost:.1f}, limit {limit:g}")


if __name__ == "__main__":
    main()
