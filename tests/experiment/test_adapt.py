"""Saved policies adapted to tasks: what is measured, what stays as it was, held-out suites, errors."""

import json
import math

import numpy as np
import pytest
import torch
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.env.meta import describe
from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment import adapt, evaluate, evaluate_suite, load_policy, run
from fsrl_ext.experiment.saved.load import load_experiment
from fsrl_ext.experiment.saved.suite import suite_report
from fsrl_ext.functional.conjugate_gradient import flatten


def trained(folder, policy, task, **settings):
    """Train for 640 steps in collects of 160 steps."""
    shared = {
        "steps": 640, "step_per_collect": 160, "selections": 1, "kl_bound": 0.05, "cost_limit": 9.0,
        "hidden_sizes": (6,), "critic_hidden_sizes": (8,), "cg_iterations": 5,
    }  # fmt: skip
    config = small_config(policy, task, **{**shared, **settings})
    return run(config, out=folder, show_progress=False).folder


@pytest.fixture(scope="module")
def meta(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("meta"), "meta_cpo", "MetaAim", cost_margin=0.0)


@pytest.fixture(scope="module")
def cpo(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("cpo"), "cpo", "MetaAim0-v0")


def parameters(policy):
    return [x.detach().clone() for x in policy.actor.parameters()]


def test_adapting_pays_and_leaves_the_run_alone(meta):
    before = parameters(load_policy(meta))
    state = torch.random.get_rng_state()
    done = adapt(meta, "MetaAim2-v0", task_seed=3, steps=4, episodes=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert done.parameters["target"] > 0.8
    assert [x.steps for x in done.points] == [0, 1, 2, 3, 4]
    assert [x.env_step for x in done.points] == [0, 160, 320, 480, 640]
    for point in done.points:
        assert len(point.collected.returns) == 16
        assert len(point.tested.returns) == 4
    first, last = done.points[0], done.points[-1]
    assert last.tested.return_mean > first.tested.return_mean + 1
    assert last.collected.return_mean > first.collected.return_mean + 1
    assert all(torch.equal(x, y) for x, y in zip(before, parameters(load_policy(meta)), strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(before, parameters(done.policy), strict=True))


def test_the_same_seed_gives_the_same_numbers_and_zero_steps_none(meta):
    runs = [adapt(meta, describe("MetaAim", 2, 3), steps=1, episodes=2, seed=s) for s in (5, 5, 6)]
    returns = [x.points[1].tested.returns.tolist() for x in runs]
    assert returns[0] == returns[1] != returns[2]
    none = adapt(meta, describe("MetaAim", 2, 3), steps=0, episodes=2, collect_last=False)
    assert none.points[0].collected is None
    assert none.points[0].tested.returns.tolist() == runs[0].points[0].tested.returns.tolist()


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_an_on_policy_run_is_fine_tuned_by_its_own_update(cpo, checkpoint):
    done = adapt(
        cpo, "MetaAim2-v0", steps=2, episodes=2, checkpoint=checkpoint, step_per_collect=80, test_at=(2,)
    )
    assert [x.env_step for x in done.points] == [0, 80, 160]
    assert [x.tested is None for x in done.points] == [True, True, False]
    assert done.points[2].tested.return_mean > 0
    # Its statistics go on from those of the training.
    assert done.policy.normaliser.count == load_policy(cpo).normaliser.count + 160


def test_a_limit_of_its_own_is_adapted_to(meta):
    # The target wants a cost near 10, the limit allows 4.
    loose, tight = (
        adapt(meta, "MetaAim2-v0", steps=5, episodes=2, cost_limit=limit) for limit in (10.0, 4.0)
    )
    assert tight.cost_limit == tight.policy.cost_limit == (4.0,)
    assert tight.points[-1].tested.cost_mean[0] < loose.points[-1].tested.cost_mean[0] - 1
    assert tight.points[0].collected.share_above_limit > 0.5


def test_steps_may_be_longer_and_keep_a_margin(meta):
    def adapted(**settings):
        return adapt(meta, "MetaAim2-v0", steps=2, episodes=2, test_at=(2,), **settings)

    as_trained, named = adapted(), adapted(kl_bound=0.05, cost_margin=0.0)
    assert named.points[-1].tested.returns.tolist() == as_trained.points[-1].tested.returns.tolist()
    short, tight = adapted(kl_bound=0.001), adapted(cost_margin=0.6)
    assert short.policy.config.kl_bound == 0.001
    start = flatten(load_policy(meta).actor.parameters())

    def moved(found):
        return float((flatten(found.policy.actor.parameters()) - start).detach().norm())

    assert moved(short) < 0.5 * moved(as_trained)
    assert tight.points[-1].tested.cost_mean[0] < as_trained.points[-1].tested.cost_mean[0]
    found = evaluate_suite(meta, adapt_steps=2, num_tasks=1, episodes=2, kl_bound=0.001)
    assert (
        found.after[0].returns.tolist()
        != evaluate_suite(meta, adapt_steps=2, num_tasks=1, episodes=2).after[0].returns.tolist()
    )


def test_a_policy_without_a_constraint_is_only_judged_by_a_limit(tmp_path):
    folder = trained(tmp_path, "trpo", "MetaAim0-v0", cost_limit=math.inf)
    done = adapt(folder, "MetaAim1-v0", steps=1, episodes=2, cost_limit=1.0)
    assert done.policy.cost_limit == (math.inf,)
    assert done.points[0].tested.share_above_limit == 1.0


def test_the_adapted_policy_is_saved(meta, tmp_path):
    out = tmp_path / "adapted.pt"
    done = adapt(meta, "MetaAim2-v0", task_seed=3, steps=2, episodes=4, out=out)
    policy, config, _ = load_experiment(out)
    assert config.task == "MetaAim"
    obs = np.ones(2, np.float32)
    assert (
        policy.compute_action(obs) == done.policy.compute_action(obs) != load_policy(meta).compute_action(obs)
    )
    # It can be judged where it belongs; on its own, it plays the family's level 0 as its run does.
    found = evaluate(out, task="MetaAim2-v0", task_seed=3, episodes=4)
    assert found.returns.tolist() == done.points[2].tested.returns.tolist()
    assert found.returns.mean() > evaluate(meta, task="MetaAim2-v0", task_seed=3, episodes=4).returns.mean()
    with pytest.raises(ValueError, match=r"out must be a new file: .*adapted\.pt exists already"):
        adapt(meta, "MetaAim2-v0", out=out)


def test_held_out_tasks_before_and_after(meta):
    found = evaluate_suite(meta, "outside", adapt_steps=2, episodes=2)
    report = suite_report(found)
    assert len(report["tasks"]) == 20
    assert {task["level"] for task in report["tasks"]} == {2}
    low, high = report["after"]["return_interval"]
    assert low <= report["after"]["return_mean"] <= high
    assert report["after"]["return_mean"] > report["before"]["return_mean"]
    assert report["after"]["return_mean"] == pytest.approx(
        np.mean([task["after"]["return_mean"] for task in report["tasks"]])
    )
    with pytest.raises(ValueError, match="num_tasks must be 1 to 20, got 21"):
        evaluate_suite(meta, num_tasks=21)
    few = evaluate_suite(meta, num_tasks=2, episodes=2)
    assert few.tasks == found.tasks[:2]
    assert [x.returns.tolist() for x in few.before] == [x.returns.tolist() for x in found.before[:2]]
    # The task's number moves the seed, so that tasks differ in their noise as well.
    alone = adapt(meta, found.tasks[1], steps=2, episodes=2, seed=1)
    assert alone.points[2].tested.returns.tolist() == found.after[1].returns.tolist()
    # What the adaptation costs while it lasts: the data of both steps, not those after the last.
    assert found.during[1].returns.tolist() == [x for p in alone.points[:2] for x in p.collected.returns]
    assert found.during[1].costs.tolist() == [x for p in alone.points[:2] for x in p.collected.costs.tolist()]
    assert report["during"]["cost_mean"] == pytest.approx(
        np.mean([task["during"]["cost_mean"] for task in report["tasks"]], 0)
    )
    assert few.during == (None, None)
    assert suite_report(few)["during"] is None


def test_the_command_line(meta, tmp_path, capsys):
    file, out = tmp_path / "a.json", tmp_path / "a.pt"
    given = ["--task", "MetaAim2-v0", "--task-seed", "3", "--steps", "1", "--episodes", "2"]
    assert main(["adapt", str(meta), *given, "--json", str(file), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "MetaAim2-v0, task seed 3, target 0.8" in printed
    assert f"adapted policy: {out}" in printed
    assert f"fsrl-ext evaluate {out} --task MetaAim2-v0 --task-seed 3" in printed
    data = json.loads(file.read_text())
    assert data["command"].startswith("fsrl-ext adapt")
    assert [len(point["tested"]["returns"]) for point in data["points"]] == [2, 2]
    assert [point["tested"]["seeds"] for point in data["points"]] == [[2_000_000, 2_000_001]] * 2
    assert [point["collected"]["seeds"] for point in data["points"]] == [None, None]
    assert main(["adapt", str(meta), *given, "--json", str(file)]) == 2
    assert "exists" in capsys.readouterr().err

    file = tmp_path / "suite.json"
    given = ["--suite", "inside", "--adapt-steps", "1", "--episodes", "1", "--json", str(file)]
    assert main(["evaluate", str(meta), *given]) == 0
    printed = capsys.readouterr().out
    assert "20 held-out tasks inside of the training range, 1 deterministic episodes each" in printed
    assert "after 1 step" in printed
    assert "data adapted to" in printed
    data = json.loads(file.read_text())
    assert (data["after"]["tasks_above_limit"], data["seeds"]) == (0.0, [2_000_000])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "SafetyBallCircle-v0"], "SafetyBallCircle-v0 has [8] and [2], MetaAim has [2] and [1]"),
        (["--task", "MetaAimTwo1-v0"], "MetaAimTwo1-v0 reports 2, got 1"),
        (["--task", "ToyLine-v0", "--task-seed", "1"], "task_seed must be None for ToyLine-v0, which is no"),
        (["--task", "MetaAim1-v0", "--task-seed", "-1"], "task_seed must be an integer"),
        (["--task", "MetaAim1-v0", "--steps", "-1"], "steps must be a whole number >= 0, got -1"),
        (["--task", "MetaAim1-v0", "--cost-limit", "1,2"], "MetaAim has 1, got 2"),
        (["--task", "MetaAim1-v0", "--kl-bound", "0"], "kl_bound must be > 0, got 0.0"),
        (["--task", "MetaAim1-v0", "--cost-margin", "1"], "cost_margin must be in [0, 1), got 1.0"),
        (["--task", "MetaAim1"], "MetaAim1"),
    ],
)
def test_mistakes_are_one_line(meta, capsys, arguments, words):
    assert main(["adapt", str(meta), *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1


def test_runs_that_cannot_be_adapted(cpo, tmp_path, capsys):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        adapt(tmp_path / "none.pt", "MetaAim1-v0")
    off_policy = run(small_config("ddpg_lag"), out=tmp_path, show_progress=False)
    with pytest.raises(ValueError, match="needs an on-policy or a meta-learned policy, got ddpg_lag"):
        adapt(off_policy.folder, "ToyLine-v0")
    assert main(["evaluate", str(cpo), "--suite", "inside"]) == 2
    assert "suite needs a meta-learned policy, got cpo on MetaAim0-v0" in capsys.readouterr().err
    assert main(["evaluate", str(cpo), "--adapt-steps", "1"]) == 2
    assert "--adapt-steps needs --suite" in capsys.readouterr().err
    for given in ([], ["--suite", "inside"]):
        assert main(["evaluate", str(cpo), "--kl-bound", "0.1", *given]) == 2
        assert "--kl-bound is about the steps of --adapt-steps" in capsys.readouterr().err
    trpo = trained(tmp_path, "trpo", "MetaAim0-v0", cost_limit=math.inf)
    with pytest.raises(ValueError, match=r"trpo has no setting cost_margin, got 0\.1"):
        adapt(trpo, "MetaAim1-v0", cost_margin=0.1)
