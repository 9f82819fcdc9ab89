"""The command line: ``fsrl-ext train | resume | evaluate | adapt | list``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsrl_ext
from fsrl_ext.cli.adapt import STEP_OPTIONS, add_adapt, add_suite_options, evaluate_on_suite

if TYPE_CHECKING:
    from fsrl_ext.experiment import RunResult


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 2 for input that cannot be used, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = _show_warning
    try:
        options = _parser(arguments).parse_args(arguments)
        return options.command(options, shlex.join(["fsrl-ext", *arguments]))
    except (ValueError, ImportError, FloatingPointError) as error:
        print(f"fsrl-ext: {error}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
    except BrokenPipeError:
        # The reader (head, less) has seen enough; nothing more is written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("fsrl-ext: interrupted", file=sys.stderr)
        return 130


def _show_warning(message: Any, category: Any, *_: Any, **__: Any) -> None:
    print(f"fsrl-ext: {category.__name__}: {message}", file=sys.stderr)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; the help of ``train`` is about the policy that is named among the arguments."""
    parser = argparse.ArgumentParser(
        prog="fsrl-ext", description="Constrained (safe) reinforcement learning."
    )
    parser.add_argument("--version", action="version", version=f"fsrl_ext {fsrl_ext.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands, arguments)
    _add_resume(commands)
    _add_evaluate(commands)
    add_adapt(commands)
    listing = commands.add_parser("list", help="print tasks and policies")
    listing.add_argument("what", nargs="?", choices=("tasks", "policies"), help="print only these")
    listing.set_defaults(command=_list)
    return parser


def _add_train(commands: Any, arguments: Sequence[str]) -> None:
    from fsrl_ext.experiment.registry import algorithms
    from fsrl_ext.experiment.settings import list_settings

    shown = next((x for x in arguments if x in algorithms()), "cvpo")
    train = commands.add_parser(
        "train",
        help="train a policy on a task",
        description="Train a policy on a task; ends with an evaluation, a table and a picture. "
        f"Settings and defaults below are those of {shown}: 'fsrl-ext train POLICY --help' has another's.",
    )
    train.add_argument("policy", help="cvpo, ...: see 'fsrl-ext list policies'")
    train.add_argument("task", help="an environment id: see 'fsrl-ext list tasks'")
    train.add_argument("--out", default="runs", help="the run folder's parent (default: runs)")
    train.add_argument("--run-name", help="the run folder's name (default: a fresh one)")
    train.add_argument(
        "--init-from", metavar="RUN", help="start from the policy of a run folder or checkpoint file"
    )
    train.add_argument(
        "--preset",
        default="tuned",
        help="a bundle of settings: tuned (default), paper (cvpo: the authors' code), cal (sac_lag: CAL)",
    )
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    titles = {"run": "the run", "policy": "the policy", "training": "networks and training loop"}
    groups = {key: train.add_argument_group(title) for key, title in titles.items()}
    settings = list_settings(shown)
    # The others' settings are read, too: what does not belong to the policy can then be named.
    for name, setting in {k: v for other in algorithms() for k, v in list_settings(other).items()}.items():
        if name not in ("policy", "task"):
            groups[setting.section].add_argument(
                f"--{name.replace('_', '-')}",
                default=argparse.SUPPRESS,
                metavar="VALUE",
                help=settings[name].help.replace("%", "%%") if name in settings else argparse.SUPPRESS,
            )
    train.set_defaults(command=_train)


def _train(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment import make_config, run
    from fsrl_ext.experiment.registry import algorithms
    from fsrl_ext.experiment.settings import list_settings

    given = vars(options)
    known = list_settings(options.policy)
    for name in given:
        if name not in known and any(name in list_settings(other) for other in algorithms()):
            raise ValueError(f"{options.policy} has no setting --{name.replace('_', '-')}")
    settings = {name: known[name].parse(given[name]) for name in known if name in given}
    config = make_config(preset=options.preset, **settings)
    done = run(
        config,
        out=options.out,
        run_name=options.run_name,
        show_progress=not options.quiet,
        command=command,
        init_from=options.init_from,
    )
    return _print_result(done)


def _print_result(done: RunResult) -> int:
    """Says how a run ended; returns the exit code."""
    from fsrl_ext.report import result_table
    from fsrl_ext.report.folder import RunFolder

    print()
    if done.status == "finished":
        print(result_table(done.result))
    else:
        print(f"interrupted after {done.result['env_step']:,} steps; the best policy so far is saved")
        if done.resumable:
            print(f"to go on:   fsrl-ext resume {shlex.quote(str(done.folder))}")
    print(f"run folder: {done.folder}\ncurves:     {RunFolder(done.folder).curves}")
    return 0 if done.status == "finished" else 130


def _add_resume(commands: Any) -> None:
    parser = commands.add_parser(
        "resume",
        help="go on with a run that was interrupted or killed",
        description="Go on from the run's last snapshot, which training takes at selections. In "
        "deterministic environments, with the same versions on the same machine, the run ends as if nothing "
        "had happened.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(command=_resume)


def _resume(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment import resume

    return _print_result(resume(options.run, show_progress=not options.quiet))


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="judge a saved policy, film it or show it",
        description="Play a saved policy and print its return and cost with 95% bootstrap intervals over "
        "episodes. Without --seed the episodes are those of the final evaluation.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
    parser.add_argument("--task", metavar="ID", help="another environment (default: that of the training)")
    parser.add_argument("--task-seed", type=int, help="draws the task of a family's id (default: 0)")
    parser.add_argument("--episodes", type=int, help="how many (default: 50; 10 per task of a suite)")
    parser.add_argument("--seed", type=int, help="the first episode's seed; the next ones count up")
    parser.add_argument("--stochastic", action="store_true", help="sample actions")
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="of a run folder (default: best)"
    )
    parser.add_argument("--cost-limit", metavar="X[,Y]", help="judge by another limit than the run's")
    parser.add_argument("--device", help="where the policy computes (default: as in training)")
    parser.add_argument("--video", metavar="FILE", help="film deterministic episodes: a new .mp4 or .gif")
    parser.add_argument("--render", choices=("human",), help="show deterministic episodes in a window")
    parser.add_argument("--video-episodes", type=int, default=1, help="how many to film or show (default: 1)")
    parser.add_argument(
        "--json", metavar="FILE", help="write the numbers, and every episode's, to a new file"
    )
    add_suite_options(parser)
    parser.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment.saved.chosen_task import other_task
    from fsrl_ext.experiment.saved.evaluate import evaluate, evaluation_report, evaluation_table
    from fsrl_ext.experiment.saved.film import check_drawing, record_video, show
    from fsrl_ext.experiment.saved.load import episode_seeds
    from fsrl_ext.experiment.settings import list_settings
    from fsrl_ext.report.files import check_new_file, write_json
    from fsrl_ext.report.folder import checkpoint_file

    for name in STEP_OPTIONS:
        if getattr(options, name) is not None and not options.adapt_steps:
            raise ValueError(f"--{name.replace('_', '-')} is about the steps of --adapt-steps")
    if options.suite is not None:
        return evaluate_on_suite(options, command)
    if options.adapt_steps is not None:
        raise ValueError("--adapt-steps needs --suite; 'fsrl-ext adapt' adapts to one task")
    run, limit = options.run, options.cost_limit
    if limit is not None:
        limit = list_settings()["cost_limit"].parse(limit)
    if options.json is not None:
        check_new_file(options.json)
    check_drawing(video=options.video, window=options.render is not None, episodes=options.video_episodes)
    seeds = episode_seeds(50 if options.episodes is None else options.episodes, options.seed)
    names = ("task", "task_seed", "seed", "checkpoint", "device")
    common = {name: getattr(options, name) for name in names}
    chosen = other_task(options.task, options.task_seed)
    evaluation = evaluate(run, episodes=len(seeds), stochastic=options.stochastic, cost_limit=limit, **common)
    file = checkpoint_file(run, options.checkpoint)
    elsewhere = "" if chosen is None else f", on {chosen}"
    print(
        f"{file}, trained for {evaluation.env_step:,} steps{elsewhere}: {len(seeds)} "
        f"{'stochastic' if options.stochastic else 'deterministic'} episodes, seeds {seeds[0]} to {seeds[-1]}"
    )
    print(f"{evaluation_table(evaluation)}\n(feasible: mean cost plus one standard error within the limit)")
    if options.json is not None:
        source: dict[str, Any] = {"command": command, "checkpoint": str(file), "seeds": [seeds[0], seeds[-1]]}
        if chosen is not None:
            source |= {"task": chosen.id, "task_seed": chosen.task_seed}
        write_json(
            Path(options.json),
            {**source, "stochastic": options.stochastic, **evaluation_report(evaluation)},
        )
    played = []
    if options.video is not None:
        played = record_video(run, options.video, episodes=options.video_episodes, **common)
    if options.render is not None:
        played = show(run, episodes=options.video_episodes, **common)
    for episode in played:
        cost = ", ".join(f"{x:.2f}" for x in episode["cost"])
        print(f"played seed {episode['seed']}: return {episode['return']:.2f}, cost {cost}")
    if options.video is not None:
        print(f"video: {options.video}")
    return 0


def _list(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.env import list_tasks
    from fsrl_ext.experiment.registry import algorithms
    from fsrl_ext.report import text_table

    if options.what != "tasks":
        print(
            text_table(
                ["policy", "what it is"], [[k, v.summary] for k, v in algorithms().items()], left=(0, 1)
            )
        )
    if options.what is None:
        print()
    if options.what != "policies":
        rows = [
            [
                task.id,
                task.suite + ("" if task.installed else " (not installed)"),
                str(task.horizon or "none"),
                {True: "yes", False: "no", None: "unknown"}[task.can_terminate],
            ]
            for task in list_tasks()
        ]
        print(text_table(["task", "suite", "time limit", "can end earlier"], rows))
    return 0
