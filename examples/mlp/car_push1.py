"""Trains PPO-Lag on SafetyCarPush1-v0 with actions that last for several steps.

python examples/mlp/car_push1.py --steps 1000000
"""

import argparse

from fsrl_ext.env import ActionRepeat, make
from fsrl_ext.experiment import load_policy, make_config, run
from fsrl_ext.report import result_table

TASK = "SafetyCarPush1-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--action-repeat", type=int, default=4, help="steps that an action lasts for")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the environment, not of decisions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # A car turns little in one step, so that one action among a thousand hardly matters. An action of four
    # steps matters more, and an episode has 250 decisions. Discount factors count decisions, so that the same
    # gamma looks four times as far ahead. Limits, budgets and episodes still count environment steps.
    config = make_config(
        "ppo_lag",
        TASK,
        cost_limit=25,
        action_repeat=args.action_repeat,
        steps=args.steps,
        seed=args.seed,
    )
    done = run(config, out=args.out)
    print(result_table(done.result))

    # The policy decides for as many steps as in training, so its environment has to repeat its actions, too.
    policy, env = load_policy(done.folder), ActionRepeat(make(TASK), args.action_repeat)
    obs, _ = env.reset(seed=args.seed)
    decisions, cost, ended = 0, 0.0, False
    while not ended:
        obs, _, terminated, truncated, info = env.step(policy.compute_action(obs))
        decisions, cost, ended = decisions + 1, cost + info["cost"], terminated or truncated
    print(f"one episode: {decisions} decisions of {args.action_repeat} steps, cost {cost:.1f}")


if __name__ == "__main__":
    main()
