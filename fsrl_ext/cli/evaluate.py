"""``fsrl-ext evaluate``: one task, with films and windows, or the held-out suite of a family."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsrl_ext.cli.options import (
    STEP_OPTIONS,
    add_allow_import,
    add_saved_policy,
    add_step_options,
    check_checkpoint,
    check_new_files,
    parse_cost_limit,
)

_EXAMPLE = """examples:
  fsrl-ext evaluate zoo:cvpo-ball-circle --episodes 20 --video ball.mp4
  fsrl-ext evaluate runs/SafetyBallCircle-v0-cvpo-seed0-1 --checkpoint last --stochastic
  fsrl-ext evaluate runs/SafetyBallCircle-v0-cvpo-seed0-1 --certify 0.95
  fsrl-ext evaluate examples/meta/point_stcircle.pt --suite outside --adapt-steps 5
"""


def add_command(commands: Any) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="judge a saved policy, film it or show it",
        description="Play a saved policy and print its return and cost with 95% intervals over episodes.\n"
        "Without --seed the episodes are those of the final evaluation.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_saved_policy(parser)
    add_allow_import(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.add_argument("--task", metavar="ID", help="another environment (default: that of the training)")
    parser.add_argument("--task-seed", type=int, help="draws the task of a family's id (default: 0)")
    parser.add_argument("--episodes", type=int, help="how many (default: 50; 10 per task of a suite)")
    parser.add_argument("--seed", type=int, help="the first episode's seed; the next ones count up")
    parser.add_argument("--stochastic", action="store_true", help="sample actions")
    parser.add_argument(
        "--cost-limit", metavar="X[,Y]", help="judge by another limit than the run's, in the same unit"
    )
    parser.add_argument("--video", metavar="FILE", help="film deterministic episodes: a new .mp4 or .gif")
    parser.add_argument("--render", choices=("human",), help="show deterministic episodes in a window")
    parser.add_argument("--video-episodes", type=int, default=1, help="how many to film or show (default: 1)")
    parser.add_argument(
        "--json", metavar="FILE", help="write the numbers, and every episode's with its seed, to a new file"
    )
    certificate = parser.add_argument_group("a proof that the limit is kept, or that it is not")
    certificate.add_argument(
        "--certify",
        type=float,
        metavar="CONFIDENCE",
        help="play episodes until they decide, with this confidence, whether the mean cost is within the "
        "limit; for example 0.95",
    )
    certificate.add_argument("--max-episodes", type=int, help="give up after so many (default: 2000)")
    certificate.add_argument(
        "--cost-bound",
        metavar="X[,Y]",
        help="the largest cost that an episode can have, in the unit of the limit (default: that of "
        "an episode with a cost of one in each step of the time limit)",
    )
    certificate.add_argument(
        "--max-share", type=float, metavar="P", help="decide, too, whether at most this share is above"
    )
    suite = parser.add_argument_group("a meta-learned policy on the held-out tasks of its family")
    suite.add_argument("--suite", choices=("inside", "outside"), help="of the range of meta-training")
    suite.add_argument(
        "--adapt-steps", type=int, metavar="K", help="adapt to each task by K steps first (default: 0)"
    )
    add_step_options(suite)
    parser.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace, command: str) -> int:
    for name in STEP_OPTIONS:
        if getattr(options, name) is not None and not options.adapt_steps:
            raise ValueError(f"--{name.replace('_', '-')} is about the steps of --adapt-steps")
    if options.suite is None and options.adapt_steps is not None:
        raise ValueError("--adapt-steps needs --suite; 'fsrl-ext adapt' adapts to one task")
    if options.suite is not None:
        _check_suite_options(options)
    _check_certificate_options(options)
    check_new_files(options.json, options.video)
    check_checkpoint(options.run, options.checkpoint)
    if options.certify is not None:
        return _certify(options, command)
    return (_on_task if options.suite is None else _on_suite)(options, command)


def _on_task(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment.saved.chosen_task import other_task
    from fsrl_ext.experiment.saved.evaluate import (
        TeamEvaluation,
        agents_table,
        evaluate,
        evaluation_report,
        evaluation_table,
    )
    from fsrl_ext.experiment.saved.film import check_drawing
    from fsrl_ext.experiment.saved.load import episode_seeds, samples_in_evaluations
    from fsrl_ext.report.files import write_json
    from fsrl_ext.report.folder import checkpoint_file
    from fsrl_ext.report.statistics import caution

    limit = parse_cost_limit(options.cost_limit)
    check_drawing(video=options.video, window=options.render is not None, episodes=options.video_episodes)
    seeds = episode_seeds(50 if options.episodes is None else options.episodes, options.seed)
    names = ("task", "task_seed", "seed", "checkpoint", "device", "allow_import")
    common = {name: getattr(options, name) for name in names}
    chosen = other_task(options.task, options.task_seed)
    evaluation = evaluate(
        options.run,
        episodes=len(seeds),
        stochastic=options.stochastic,
        cost_limit=limit,
        show_progress=not options.quiet,
        **common,
    )
    file = checkpoint_file(options.run, options.checkpoint)
    elsewhere = "" if chosen is None else f", on {chosen}"
    stochastic = options.stochastic or samples_in_evaluations(file)
    print(
        f"{file}, trained for {evaluation.env_step:,} steps{elsewhere}: {len(seeds)} "
        f"{'stochastic' if stochastic else 'deterministic'} episodes, seeds {seeds[0]} to {seeds[-1]}"
    )
    print(evaluation_table(evaluation))
    print(
        "(95% intervals over these episodes: Student t for means, exact binomial for shares;\n"
        "feasible: mean cost of these episodes plus one standard error within the limit)"
        + caution([len(seeds)], "episodes")
    )
    if isinstance(evaluation, TeamEvaluation):
        print(agents_table(evaluation))
    if options.json is not None:
        source: dict[str, Any] = {"command": command, "checkpoint": str(file)}
        if chosen is not None:
            source |= {"task": chosen.id, "task_seed": chosen.task_seed}
        write_json(
            Path(options.json),
            {**source, "stochastic": stochastic, **evaluation_report(evaluation)},
        )
    _play(options, common, evaluation.cost_names)
    return 0


def _certify(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment.saved.certify import (
        MAX_EPISODES,
        certificate_report,
        certificate_table,
        certify,
    )
    from fsrl_ext.experiment.saved.load import samples_in_evaluations
    from fsrl_ext.report.files import write_json
    from fsrl_ext.report.folder import checkpoint_file

    names = ("task", "task_seed", "seed", "stochastic", "checkpoint", "device", "allow_import")
    certificate = certify(
        options.run,
        confidence=options.certify,
        share_limit=options.max_share,
        cost_bound=parse_cost_limit(options.cost_bound, "cost_bound"),
        max_episodes=MAX_EPISODES if options.max_episodes is None else options.max_episodes,
        cost_limit=parse_cost_limit(options.cost_limit),
        show_progress=not options.quiet,
        **{name: getattr(options, name) for name in names},
    )
    file = checkpoint_file(options.run, options.checkpoint)
    episodes = len(certificate.evaluation.returns)
    bound = ", ".join(f"{x:g}" for x in certificate.cost_bound)
    stochastic = options.stochastic or samples_in_evaluations(file)
    discounted = ", discounted" if certificate.evaluation.limit_unit == "discounted" else ""
    print(
        f"{file}: {episodes} {'stochastic' if stochastic else 'deterministic'} episodes, "
        f"mean return {certificate.evaluation.return_mean:.2f}"
    )
    print(certificate_table(certificate))
    print(
        f"(each answer and each bound is wrong with a probability of at most "
        f"{1 - certificate.confidence:.2g}, if no episode\n"
        f"can cost more than {bound}{'' if options.cost_bound else f', one for each step{discounted}'})"
    )
    if options.json is not None:
        source = {"command": command, "checkpoint": str(file), "stochastic": stochastic}
        write_json(Path(options.json), {**source, **certificate_report(certificate)})
    return 0


def _check_certificate_options(options: argparse.Namespace) -> None:
    """Refuses options that do not go together with a certificate, or with its absence."""
    if options.certify is None:
        for name in ("max_episodes", "cost_bound", "max_share"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is about --certify")
        return
    for name in ("suite", "video", "render", "episodes"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} does not go with --certify")


def _play(options: argparse.Namespace, common: dict[str, Any], cost_names: Sequence[str] | None) -> None:
    """Films episodes and shows them, as far as that is asked for."""
    from fsrl_ext.cost_names import labelled
    from fsrl_ext.experiment.saved.film import record_video, show

    played = []
    if options.video is not None:
        played = record_video(
            options.run,
            options.video,
            episodes=options.video_episodes,
            show_progress=not options.quiet,
            **common,
        )
    if options.render is not None:
        played = show(options.run, episodes=options.video_episodes, **common)
    for episode in played:
        cost = ", ".join(labelled([f"{x:.2f}" for x in episode["cost"]], cost_names))
        print(f"played seed {episode['seed']}: return {episode['return']:.2f}, cost {cost}")
    if options.video is not None:
        print(f"video: {options.video}")


def _check_suite_options(options: argparse.Namespace) -> None:
    """Refuses options that are about a single task."""
    for name in ("video", "render"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} shows one task; it does not go with --suite")
    for name in ("task", "task_seed"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is one task; it does not go with --suite")
    if options.stochastic:
        raise ValueError("--stochastic does not go with --suite, whose episodes are deterministic")


def _on_suite(options: argparse.Namespace, command: str) -> int:
    from fsrl_ext.experiment.saved.suite import evaluate_suite, suite_report, suite_table
    from fsrl_ext.report.files import write_json
    from fsrl_ext.report.statistics import caution

    evaluation = evaluate_suite(
        options.run,
        options.suite,
        allow_import=options.allow_import,
        adapt_steps=options.adapt_steps or 0,
        episodes=10 if options.episodes is None else options.episodes,
        seed=options.seed or 0,
        checkpoint=options.checkpoint,
        cost_limit=parse_cost_limit(options.cost_limit),
        device=options.device,
        show_progress=not options.quiet,
        **{name: getattr(options, name) for name in STEP_OPTIONS},
    )
    print(
        f"{evaluation.family}: {len(evaluation.tasks)} held-out tasks {evaluation.suite} of the training "
        f"range, {len(evaluation.before[0].returns)} deterministic episodes each"
    )
    print(suite_table(evaluation))
    print(
        "(over tasks, as independent ones [95% interval: Student t, of the share of tasks exact binomial];"
        "\ntasks above: whose mean cost exceeds the limit"
        + ("; data adapted to: episodes with sampled actions)" if options.adapt_steps else ")")
        + caution([len(evaluation.tasks)], "tasks")
    )
    if options.json is not None:
        write_json(Path(options.json), {"command": command, **suite_report(evaluation)})
    return 0
