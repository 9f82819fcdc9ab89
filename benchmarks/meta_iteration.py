"""Measures a meta-iteration of Meta-CPO with one core and with two, in turn.

    python benchmarks/meta_iteration.py                            # three alternating iterations of each
    python benchmarks/meta_iteration.py --tree OTHER               # and of the package in another checkout

Each side is a process of its own with one torch thread and Meta-CPO's default settings, and makes one
iteration when it is told to, so that the sides take turns. The first iteration of a side is not counted. The
script prints medians of the wall seconds of an iteration, of the processor seconds of the learning process
and of its finished children (the processes of environments, which end with their task), and of the shares of
the stages in the learning process. With ``--check`` the sides of this tree must also end with equal
parameters. ``--json`` keeps the figures.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import inspect
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "meta_iteration.json"


def serve(task: str, cores: int) -> None:
    """Makes one iteration for each line of the standard input, and prints its figures as one line."""
    import json

    import torch
    from tianshou.policy.base import policy_within_training_step

    from fsrl_ext.env.meta import TaskDistribution
    from fsrl_ext.experiment import make_config
    from fsrl_ext.experiment.training import build

    torch.set_num_threads(1)
    config = make_config("meta_cpo", task)
    build.seed_everything(config)
    policy: Any = build.build_policy(config)[0]
    takes_cores = "cores" in inspect.signature(build.train_collector).parameters
    collector: Any = build.train_collector(policy, config, **({"cores": cores} if takes_cores else {}))
    stages: dict[str, float] = {}

    def watch(owner: Any, method: str) -> None:
        original = getattr(owner, method)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                stages[method] = stages.get(method, 0.0) + time.perf_counter() - begun

        setattr(owner, method, timed)

    for owner, method in (
        (collector, "start"),
        (collector, "collect"),
        (policy, "_fit_critic"),
        (policy, "_task_outcome"),
        (policy, "meta_step"),
    ):
        watch(owner, method)
    tasks, k = TaskDistribution(task, seed=0), policy.config.num_tasks
    for iteration, _ in enumerate(sys.stdin):
        stages.clear()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun, used = time.perf_counter(), time.process_time()
        for number, one in enumerate(tasks.draw(k, start=iteration * k)):
            collector.start(one, [1000 * iteration + 100 * number + i for i in range(config.num_envs)])
            policy.begin_task(record=True)
            for step in range(policy.config.inner_steps + 1):
                collector.collect()
                if step < policy.config.inner_steps:
                    with policy_within_training_step(policy):
                        policy.update(0, collector.buffer)
            policy.finish_task(collector.buffer)
        collector.close()
        policy.meta_step()
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures = {
            "wall": time.perf_counter() - begun,
            "learner": time.process_time() - used,
            "children": ended.ru_utime + ended.ru_stime - children.ru_utime - children.ru_stime,
            "stages": dict(stages),
            "parameters": hashlib.sha256(
                b"".join(x.detach().numpy().tobytes() for x in policy.parameters())
            ).hexdigest(),
        }
        print("figures " + json.dumps(figures), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="SafetyPointStcircle")
    parser.add_argument("--tree", type=Path, help="another checkout, which runs as it is with one core")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--check", action="store_true", help="fail unless one core and two give equal parameters"
    )
    parser.add_argument("--json", type=Path, help=f"such as {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--serve", type=int, metavar="CORES", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.task, options.serve)
        return 0
    import json

    from fsrl_ext.report.files import write_json

    sides = {"one core": (ROOT, 1), "two cores": (ROOT, 2)}
    if options.tree:
        sides["other tree"] = (options.tree.resolve(), 1)
    servers = {}
    for name, (tree, cores) in sides.items():
        command = [sys.executable, __file__, "--task", options.task, "--serve", str(cores)]
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        servers[name] = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(1 + options.rounds):
        for name, server in servers.items():
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write("\n")
            server.stdin.flush()
            line = next(x for x in server.stdout if x.startswith("figures "))
            rows[name].append(json.loads(line.removeprefix("figures ")))
            print(
                name, {k: round(v, 2) for k, v in rows[name][-1].items() if isinstance(v, float)}, flush=True
            )
    for server in servers.values():
        server.communicate()
    medians = {
        name: {
            **{k: statistics.median(x[k] for x in found[1:]) for k in ("wall", "learner", "children")},
            "stages": {k: statistics.median(x["stages"][k] for x in found[1:]) for k in found[0]["stages"]},
        }
        for name, found in rows.items()
    }
    for name, figures in medians.items():
        print(name, {k: round(v, 2) for k, v in figures.items() if k != "stages"})
        print("   ", {k: round(v, 2) for k, v in figures["stages"].items()})
    base = rows["other tree" if options.tree else "one core"]
    ratios = [a["wall"] / b["wall"] for a, b in zip(rows["two cores"][1:], base[1:], strict=True)]
    whose = "the other tree's" if options.tree else "one core's"
    print(f"two cores take {statistics.median(ratios):.2f} of {whose} wall time (bar 0.5, on free cores)")
    equal = [x["parameters"] for x in rows["one core"]] == [x["parameters"] for x in rows["two cores"]]
    print("one core and two: equal parameters" if equal else "one core and two DIFFER")
    if options.json:
        write_json(
            options.json,
            {"task": options.task, "medians": medians, "ratios": ratios, "equal": equal},
            indent=1,
        )
    return 1 if options.check and not equal else 0


if __name__ == "__main__":
    sys.exit(main())
