"""Trains SAC-Lag on SafetyCarButton1-v0, and proves by episodes that the policy keeps its limit, or does not.

python examples/mlp/car_button1.py --steps 1000000
"""

import argparse

from fsrl_ext.experiment import certify, make_config, run

TASK = "SafetyCarButton1-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--confidence", type=float, default=0.95, help="of each verdict")
    parser.add_argument(
        "--max-share", type=float, default=0.3, help="of episodes that may be above the limit"
    )
    parser.add_argument("--max-episodes", type=int, default=1000, help="until the question stays open")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    config = make_config("sac_lag", TASK, cost_limit=25, steps=args.steps, seed=args.seed)
    done = run(config, out=args.out)

    # A mean over 50 episodes is no proof. This plays episodes until one is found: each verdict is wrong with
    # a probability of at most 1 - confidence, although it is looked for after every ten episodes.
    proof = certify(
        done.folder,
        confidence=args.confidence,
        share_limit=args.max_share,
        max_episodes=args.max_episodes,
        show_progress=True,
    )
    episodes = len(proof.evaluation.returns)
    low, high = proof.cost_bounds[0]
    print(f"mean cost after {episodes} episodes: {proof.verdict}, between {low:.1f} and {high:.1f}; limit 25")
    low, high = proof.share_bounds
    print(
        f"share above the limit: {proof.share_verdict}, between {low:.0%} and {high:.0%}; "
        f"at most {args.max_share:.0%}"
    )


if __name__ == "__main__":
    main()
