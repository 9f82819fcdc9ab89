"""The commands about adaptation: ``fsrl-ext adapt``, and ``fsrl-ext evaluate --suite``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

STEP_OPTIONS = ("cost_margin", "kl_bound")
"""What steps of the adaptation may do otherwise than those of the training."""


def add_adapt(commands: Any) -> None:
    """Adds ``fsrl-ext adapt``."""
    parser = commands.add_parser(
        "adapt",
        help="adapt a saved policy to a task",
        description="Adapt a saved meta-learned policy to a task, or fine-tune a saved on-policy one, and "
        "measure it before and after each step: in the data that it collects (actions are sampled, and the "
        "next step learns from it) and in deterministic episodes.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
    parser.add_argument("--task", metavar="ID", required=True, help="an environment id")
    parser.add_argument("--task-seed", type=int, help="draws the task of a family's id (default: 0)")
    parser.add_argument("--steps", type=int, default=5, metavar="K", help="how many (default: 5)")
    parser.add_argument("--episodes", type=int, default=10, help="deterministic, each time (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of what is learnt from (default: 0)")
    parser.add_argument(
        "--step-per-collect", type=int, metavar="N", help="environment steps of a step (default: as trained)"
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="of a run folder (default: best)"
    )
    parser.add_argument("--cost-limit", metavar="X[,Y]", help="adapt to another limit than the run's")
    _add_step_options(parser)
    parser.add_argument("--device", help="where the policy computes (default: as in training)")
    parser.add_argument("--out", metavar="FILE", help="write the adapted policy to a new .pt file")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a new file")
    parser.set_defaults(command=_adapt)


def _adapt(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment.saved.adapt import adapt
    from fsrl_ext.experiment.saved.adapt_report import adaptation_report, adaptation_table
    from fsrl_ext.report.files import check_new_file, write_json

    if options.json is not None:
        check_new_file(options.json)
    names = ("task_seed", "steps", "episodes", "seed", "checkpoint", "step_per_collect", "device", "out")
    done = adapt(
        options.run,
        options.task,
        cost_limit=_limit(options),
        **{name: getattr(options, name) for name in (*names, *STEP_OPTIONS)},
    )
    drawn = "".join(f", {name} {value:g}" for name, value in done.parameters.items())
    seed = "" if done.task_seed is None else f", task seed {done.task_seed}"
    limit = ", ".join(f"{x:g}" for x in done.cost_limit)
    print(f"{done.checkpoint} on {done.task}{seed}{drawn}; cost limit {limit}")
    print(adaptation_table(done))
    print("(mean ± standard error; left of the test columns: episodes of the data that is learnt from)")
    if options.json is not None:
        write_json(Path(options.json), {"command": command, **adaptation_report(done)})
    if options.out is not None:
        seed = "" if done.task_seed is None else f" --task-seed {done.task_seed}"
        print(f"adapted policy: {options.out}")
        print(f"judge or film it there: fsrl-ext evaluate {options.out} --task {done.task}{seed}")
    return 0


def add_suite_options(parser: Any) -> None:
    """Adds ``--suite`` and ``--adapt-steps`` to ``fsrl-ext evaluate``."""
    group = parser.add_argument_group("a meta-learned policy on the held-out tasks of its family")
    group.add_argument("--suite", choices=("inside", "outside"), help="of the range of meta-training")
    group.add_argument(
        "--adapt-steps", type=int, metavar="K", help="adapt to each task by K steps first (default: 0)"
    )
    _add_step_options(group)


def evaluate_on_suite(options: argparse.Namespace, command: str) -> int:
    """``fsrl-ext evaluate RUN --suite ...``; 10 episodes per task unless told otherwise."""
    from fsrl_ext.experiment.saved.suite import evaluate_suite, suite_report, suite_table
    from fsrl_ext.report.files import check_new_file, write_json

    for name in ("video", "render"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} shows one task; it does not go with --suite")
    for name in ("task", "task_seed"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is one task; it does not go with --suite")
    if options.stochastic:
        raise ValueError("--stochastic does not go with --suite, whose episodes are deterministic")
    if options.json is not None:
        check_new_file(options.json)
    found = evaluate_suite(
        options.run,
        options.suite,
        adapt_steps=options.adapt_steps or 0,
        episodes=10 if options.episodes is None else options.episodes,
        seed=options.seed or 0,
        checkpoint=options.checkpoint,
        cost_limit=_limit(options),
        device=options.device,
        **{name: getattr(options, name) for name in STEP_OPTIONS},
    )
    episodes = len(found.before[0].returns)
    print(
        f"{found.family}: {len(found.tasks)} held-out tasks {found.suite} of the training range, "
        f"{episodes} deterministic episodes each"
    )
    print(suite_table(found))
    print(
        "(mean [95% bootstrap interval] over tasks; tasks above: whose mean cost exceeds the limit"
        + ("; data adapted to: episodes with sampled actions)" if options.adapt_steps else ")")
    )
    if options.json is not None:
        write_json(Path(options.json), {"command": command, **suite_report(found)})
    return 0


def _add_step_options(parser: Any) -> None:
    parser.add_argument(
        "--cost-margin",
        type=float,
        metavar="X",
        help="share of the limit that steps keep free (default: as trained)",
    )
    parser.add_argument(
        "--kl-bound", type=float, metavar="X", help="KL divergence of a step, in nats (default: as trained)"
    )


def _limit(options: argparse.Namespace) -> tuple[float, ...] | None:
    from fsrl_ext.experiment.settings import list_settings

    return None if options.cost_limit is None else list_settings()["cost_limit"].parse(options.cost_limit)
