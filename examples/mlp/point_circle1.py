"""Trains FOCOPS on SafetyPointCircle1-v0 with a logger and a callback of its own, which stops a good run.

python examples/mlp/point_circle1.py --steps 1000000 --enough 40
"""

import argparse
from pathlib import Path

from tianshou.utils import TensorboardLogger
from torch.utils.tensorboard import SummaryWriter

from fsrl_ext.experiment import RunCallback, make_config, run

TASK = "SafetyPointCircle1-v0"


class StopWhenGood(RunCallback):
    """Prints every selection and ends the run at the first feasible policy with enough return."""

    def __init__(self, enough: float) -> None:
        self.enough = enough

    def on_selection(self, run) -> None:
        tested = run.evaluation
        print(
            f"{tested.env_step:,} steps: return {tested.return_mean:.1f}, cost {tested.cost_mean[0]:.1f}, "
            f"{'feasible' if tested.feasible else 'above the limit'}"
        )
        if tested.feasible and tested.return_mean >= self.enough:
            raise KeyboardInterrupt  # ends the run as Ctrl-C does: cleanly, with its policies saved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--enough", type=float, default=40.0, help="return at which the run stops")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    # The logger gets what the run folder's own files get. A WandbLogger works in the same way.
    logger = TensorboardLogger(SummaryWriter(str(Path(args.out, "my_curves"))), update_interval=1)
    config = make_config("focops", TASK, cost_limit=25, steps=args.steps, seed=args.seed)
    done = run(config, out=args.out, logger=logger, callbacks=[StopWhenGood(args.enough)])
    print(f"{done.status} after {done.result['env_step']:,} steps: {done.folder}")


if __name__ == "__main__":
    main()
