"""Trains on SafetyPointPush1-v0 in two stages: the second run starts from the first one's policy.

python examples/mlp/point_push1.py --steps 1000000
"""

import argparse

from fsrl_ext.experiment import evaluate, make_config, resume, run

TASK = "SafetyPointPush1-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resume", metavar="RUN", help="go on with a run that was cut off, and stop there")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of each stage")
    parser.add_argument("--episodes", type=int, default=20, help="of each evaluation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # Ctrl-C ends a run with the status "interrupted". Its last snapshot continues it, bit for bit.
    if args.resume is not None:
        print(resume(args.resume).status)
        return

    # Networks, multipliers and the optimisers' moments go over; the settings are those of the new config.
    done = None
    for limit in (50.0, 25.0):
        config = make_config(
            "td3_lag", TASK, cost_limit=limit, steps=args.steps, seed=args.seed, warmup_steps=0
        )
        done = run(config, out=args.out, init_from=None if done is None else done.folder)
        if done.resumable:
            print(f"stopped; to go on: python {__file__} --resume {done.folder}")
            return

        # A run folder has two policies: the best one within the limit, and the newest one.
        for which in ("best", "last"):
            judged = evaluate(done.folder, checkpoint=which, episodes=args.episodes)
            print(
                f"limit {limit:g}, {which} policy: return {judged.return_mean:.1f}, "
                f"cost {judged.cost_mean[0]:.1f}, {done.folder / 'checkpoints' / which}.pt"
            )


if __name__ == "__main__":
    main()
