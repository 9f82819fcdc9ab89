"""The studies that come with the package: each can be planned, and a file of the same name wins."""

import pytest
from toys.studies import assert_refused

from fsrl_ext.cli import main
from fsrl_ext.env.meta import list_families
from fsrl_ext.env.suite_tasks import FIXED_TASKS, SUITE_TASKS
from fsrl_ext.experiment.settings import make_config
from fsrl_ext.experiment.sweeps.description import read_study_file
from fsrl_ext.experiment.sweeps.shipped import shipped_studies, summary

RUNS = {
    "cvpo-paper": 350,
    "cvpo-paper-kl": 18,
    "cvpo-paper-limits": 60,
    "cvpo-paper-small": 75,
    "cvpo-paper-small-presets": 12,
    "fsrl-bullet": 147,
    "meta-cpo-paper": 36,
    "safety-gymnasium": 120,
}


@pytest.fixture(scope="module")
def plans():
    """The plans of all studies, without building each of their tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsrl_ext.experiment.sweeps.study.check_runs", lambda *_, **__: None)
        return {name: read_study_file(name).plan("fsrl-ext sweep") for name in RUNS}


def test_every_study_can_be_planned(plans):
    assert set(shipped_studies()) == set(RUNS)
    assert {name: len(plan.runs) for name, plan in plans.items()} == RUNS
    tasks = {run.config.task for plan in plans.values() for run in plan.runs}
    assert tasks <= {*SUITE_TASKS, *list_families()}
    for name, path in shipped_studies().items():
        assert summary(path).endswith(".")
        assert path.read_text().startswith("# " + summary(path))
        folder = "cvpo-paper-small" if name == "cvpo-paper-small-presets" else name
        assert plans[name].folder.name == folder


def test_limits_and_steps_are_the_papers(plans):
    for name in ("cvpo-paper", "cvpo-paper-small"):
        limits = {(run.config.task, run.config.cost_limit) for run in plans[name].runs}
        assert limits == {("SafetyCarCircle-v0", (20.0,)), *((task, (10.0,)) for task in FIXED_TASKS)}
    steps = {(run.config.task == "SafetyCarCircle-v0", run.config.steps) for run in plans["cvpo-paper"].runs}
    assert steps == {(True, 300 * 20 * 300), (False, 300 * 20 * 400)}
    small = {(run.config.policy == "trpo_lag", run.config.steps) for run in plans["cvpo-paper-small"].runs}
    assert small == {(True, 1_000_000), (False, 400_000)}


def test_the_papers_settings_of_the_circle(plans):
    """What scales with the samples is the preset's for 64 in place of 32; gains are times the threshold."""
    runs = {(run.config.policy, run.config.task): run.config for run in plans["cvpo-paper"].runs}
    circle = runs["cvpo", "SafetyCarCircle-v0"]
    preset = make_config("cvpo", "SafetyCarCircle-v0", preset="paper")
    for name in ("num_samples", "kl_multiplier_lr", "kl_multiplier_max", "max_grad_norm"):
        values = (getattr(x.policy_config, name) for x in (circle, preset))
        ours, of_preset = ([x] if isinstance(x, int | float) else list(x) for x in values)
        assert ours == pytest.approx([2 * x for x in of_preset])
    assert circle.training.update_per_step == pytest.approx(28 / 300)
    assert circle.policy_config.goal_reward is None
    threshold = 20 / 300 * (1 - 0.99**300) / (1 - 0.99)
    for policy in ("sac_lag", "td3_lag", "ddpg_lag"):
        gains = runs[policy, "SafetyCarCircle-v0"].policy_config.multiplier_gains
        assert gains == pytest.approx([x * threshold for x in (0.1, 0.003, 0.001)], rel=2e-3)
        assert runs[policy, "SafetyCarGoalFixed-v0"].policy_config.goal_reward == 0.5


def test_a_file_wins_over_a_study_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cvpo-paper").write_text('policies = ["cpo"]\ntasks = ["KnownOptimumFirstSix-v0"]\n')
    assert read_study_file("cvpo-paper").policies == ["cpo"]
    (tmp_path / "cvpo-paper").unlink()
    (tmp_path / "cvpo-paper").mkdir()  # the folder that the study makes
    assert read_study_file("cvpo-paper").policies[0] == "cvpo"
    assert read_study_file("cvpo-paper").out == "cvpo-paper"


def test_other_names_are_refused_with_the_nearest_one(capsys):
    assert_refused(["sweep", "cvpo-papr", "--dry-run"], "did you mean cvpo-paper", capsys)
    assert_refused(["sweep", "xyzzy.toml", "--dry-run"], "fsrl-ext list studies", capsys)


def test_the_list_names_them(capsys):
    assert main(["list", "studies"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in RUNS)
    assert "SafetyCarCircle" not in printed
