"""Trains two agents that share the legs of an ant, with one limit on the cost of the team.

python examples/multi_agent/ant_velocity.py --policy ppo_lag --steps 300000
"""

import argparse

from fsrl_ext.env import make
from fsrl_ext.experiment import evaluate, load_policy, make_config, run
from fsrl_ext.report import result_table

TASK = "SafetyAntVelocity-2x4-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="ppo_lag")
    parser.add_argument("--agents", choices=("shared", "independent"), default="shared")
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--cost-limit", type=float, default=25.0)
    parser.add_argument("--episodes", type=int, default=10, help="of each judgement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    env = make(TASK)
    for name in env.possible_agents:
        print(f"{name}: sees {env.observation_space(name).shape}, moves {env.action_space(name).shape}")

    config = make_config(
        args.policy,
        TASK,
        agents=args.agents,
        cost_limit=args.cost_limit,
        steps=args.steps,
        step_per_collect=min(20_000, args.steps),
        selection_episodes=args.episodes,
        final_episodes=args.episodes,
        seed=args.seed,
    )
    done = run(config, out=args.out)
    print(result_table(done.result))

    # The policy acts for the team: its observations and actions are the agents', one after the other.
    judged = evaluate(done.folder, episodes=args.episodes)
    for i, name in enumerate(judged.agents):
        steps = judged.agent_lens[:, i].mean()
        print(f"{name}: return {judged.agent_returns[:, i].mean():.1f}, steps {steps:.0f}")
    networks = len(load_policy(done.folder).actor.actors)
    print(f"team: return {judged.return_mean:.1f}, cost {judged.cost_mean[0]:.1f}, actors {networks}")


if __name__ == "__main__":
    main()
