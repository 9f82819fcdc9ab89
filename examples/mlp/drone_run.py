"""Films what PPO-Lag learnt on SafetyDroneRun-v0: its best policy within the limit and its last one.

python examples/mlp/drone_run.py --steps 300000
"""

import argparse
from pathlib import Path

from fsrl_ext.experiment import make_config, record_video, run

TASK = "SafetyDroneRun-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=3, help="of each film")
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    done = run(make_config("ppo_lag", TASK, cost_limit=10, steps=args.steps, seed=args.seed), out=args.out)

    # Films have the same seeds and so the same starts. A .gif needs imageio; an .mp4 imageio-ffmpeg, too.
    for which in ("best", "last"):
        film = Path(done.folder, f"{which}.gif")
        for episode in record_video(done.folder, film, checkpoint=which, episodes=args.episodes, seed=0):
            print(
                f"{which} policy, seed {episode['seed']}: return {episode['return']:.1f}, "
                f"cost {episode['cost'][0]:.0f}, {episode['frames']} frames"
            )
        print(f"film: {film}")


if __name__ == "__main__":
    main()
