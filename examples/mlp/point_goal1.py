"""Trains CVPO on SafetyPointGoal1-v0 and asks why the policy keeps its limit, or why it does not.

python examples/mlp/point_goal1.py --steps 1000000
"""

import argparse

from fsrl_ext.experiment import make_config, run
from fsrl_ext.experiment.saved.diagnosis.diagnose import diagnose
from fsrl_ext.report import result_table
from fsrl_ext.report.diagnosis.tables import diagnosis_text

TASK = "SafetyPointGoal1-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--episodes", type=int, default=20, help="of the diagnosis")
    parser.add_argument("--states", type=int, default=40, help="whose first actions are replayed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs")
    args = parser.parse_args()

    done = run(make_config("cvpo", TASK, cost_limit=25, steps=args.steps, seed=args.seed), out=args.out)
    print(result_table(done.result))

    # Critics against what is realised, the constraint in training, and findings: docs/diagnose.md
    report = diagnose(done.folder, checkpoint="last", episodes=args.episodes, states=args.states)
    print(diagnosis_text(report))

    # The report is plain data. What a finding advises is the reason for the next run's settings.
    about = sorted({finding["about"] for finding in report["findings"]})
    print(f"\n{len(report['findings'])} findings, about {', '.join(about)}")


if __name__ == "__main__":
    main()
