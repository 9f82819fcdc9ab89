"""Runs with discrete actions: every algorithm, resuming, judging, export, diagnosis, workers, benchmark."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import META_NAMES, OFFPOLICY_NAMES, small_config

from fsrl_ext.cli import main
from fsrl_ext.data.randomness import private_randomness
from fsrl_ext.env import check_env, make
from fsrl_ext.env.check.spaces import DISCRETE_ALGORITHMS
from fsrl_ext.errors import CheckpointError
from fsrl_ext.experiment import evaluate, export_policy, load_policy, make_config, resume, run
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.saved import film
from fsrl_ext.experiment.saved.diagnosis.diagnose import diagnose
from fsrl_ext.experiment.saved.load import load_experiment
from fsrl_ext.experiment.task import TaskSpec
from fsrl_ext.experiment.training import snapshot
from fsrl_ext.experiment.training.build import check_effects, check_task
from fsrl_ext.experiment.training.checkpoint import read_checkpoint, save_checkpoint

TASK = "ToyDiscrete-v0"  # whose two actions are 3 and 4


def presets_of(name):
    return ("tuned", *algorithms()[name].presets)


BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "discrete_optimum.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of a run of CVPO, judged by its most probable actions, and of one of PPO-Lag, which samples."""
    out = tmp_path_factory.mktemp("runs")
    settings = {"steps": 160, "step_per_collect": 80, "selections": 1}
    configs = {
        "cvpo": small_config("cvpo", TASK, deterministic_eval=True, **settings),
        "ppo_lag": small_config("ppo_lag", TASK, **settings),
    }
    return {
        name: run(config, out=out, run_name=name, show_progress=False).folder
        for name, config in configs.items()
    }


def test_which_algorithms_take_discrete_actions():
    assert tuple(x for x, row in algorithms().items() if row.takes_discrete_actions) == DISCRETE_ALGORITHMS


def test_the_checker_says_so():
    findings = {x.check: x for x in check_env(TASK, workers=False)}
    assert {x.status for x in findings.values()} == {"ok"}
    assert findings["action space"].message == f"Discrete(2, start=3), for {', '.join(DISCRETE_ALGORITHMS)}"
    assert findings["action bounds"].message == "steps with the first and the last action"


@pytest.mark.parametrize("name", DISCRETE_ALGORITHMS)
def test_every_algorithm_goes_on_as_if_nothing_had_happened(name, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "TIME_SHARE", np.inf)
    monkeypatch.setattr(snapshot, "INTERVAL", 0.0)
    config = resumable_config(name, TASK, steps=320, selections=2)
    whole = run(config, out=tmp_path, run_name="whole", show_progress=False, cores=1)
    folder = run_killed(config, 160, tmp_path)
    assert resume(folder, show_progress=False, cores=1).result["resumed"][0]["exact"]
    assert_same_run(whole.folder, folder)


@pytest.mark.parametrize("name", [x for x in OFFPOLICY_NAMES if x != "cvpo"])
def test_algorithms_of_continuous_actions_refuse_the_task_before_anything_is_written(name, tmp_path):
    message = (
        rf"^{name} cannot train {TASK}: {TASK} has the action space Discrete\(2, start=3\), and {name} needs "
        r"a bounded Box; discrete actions are for cvpo, cpo, trpo_lag, ppo_lag, focops, trpo, ppo$"
    )
    with pytest.raises(ValueError, match=message):
        run(small_config(name, TASK), out=tmp_path / "runs", show_progress=False)
    assert not (tmp_path / "runs").exists()


# Another value of each setting that has no effect on discrete actions.
EXPORT_PAGE = Path(__file__).parents[2] / "docs" / "export.md"
CONTINUOUS_ONLY = {
    **{name: {"initial_std": 0.3} for name in ("cpo", "trpo_lag", "ppo_lag", "focops", "trpo", "ppo")},
    "cvpo": {
        "initial_std": 0.3, "covariance": "full", "num_samples": 8, "action_sampling": "stratified",
        "estep_precision": "forced-bfloat16", "kl_bound_scale": 0.3, "mean_range": 2.0,
    },
}  # fmt: skip
PAIRS = [(name, setting) for name, settings in CONTINUOUS_ONLY.items() for setting in settings]


def test_every_setting_without_effect_on_discrete_actions_is_known():
    rows = {name: row for name, row in algorithms().items() if row.takes_discrete_actions}
    assert {name: set(row.continuous_only) for name, row in rows.items()} == {
        name: set(settings) for name, settings in CONTINUOUS_ONLY.items()
    }


@pytest.mark.parametrize(("name", "setting"), PAIRS)
def test_a_setting_without_effect_is_refused_before_anything_is_written(name, setting, tmp_path):
    value = CONTINUOUS_ONLY[name][setting]
    message = rf"^{setting} must be .* for {TASK}, because {name} does not use it .*, got {value!r}$"
    with pytest.raises(ValueError, match=message):
        run(small_config(name, TASK, **{setting: value}), out=tmp_path / "runs", show_progress=False)
    assert not (tmp_path / "runs").exists()
    # With continuous actions it is a setting as all others.
    check_effects(small_config(name, "ToyLine-v0", **{setting: value}), check_task(small_config(name)))


@pytest.mark.parametrize(("name", "preset"), [(x, y) for x in CONTINUOUS_ONLY for y in presets_of(x)])
def test_defaults_and_presets_are_not_refused(name, preset):
    config = make_config(name, TASK, preset=preset)
    check_effects(config, check_task(config))


@pytest.mark.parametrize("name", [x for x in algorithms() if x not in META_NAMES])
def test_every_algorithm_refuses_other_spaces_before_anything_is_written(name, tmp_path):
    with pytest.raises(ValueError, match=r"ToyGears-v0 has the action space MultiDiscrete\(\[2 3\]\); a"):
        run(small_config(name, "ToyGears-v0"), out=tmp_path / "runs", show_progress=False)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["cvpo", "ppo_lag"])
def test_a_saved_policy_is_judged_loaded_and_played(trained, name, capsys):
    folder = trained[name]
    judged = json.loads((folder / "result.json").read_text())["last"]
    again = evaluate(folder, checkpoint="last", episodes=4)
    np.testing.assert_array_equal(again.returns, judged["returns"])
    # In a constant state, a policy that samples takes both actions.
    policy = load_policy(folder)
    actions = {int(policy.compute_action(np.zeros(2, np.float32))) for _ in range(100)}
    assert actions <= {3, 4}
    assert len(actions) == (1 if name == "cvpo" else 2)
    # A film plays what an evaluation of the same single episode plays.
    (alone,) = evaluate(folder, checkpoint="last", episodes=1).returns
    policy = load_policy(folder / "checkpoints" / "last.pt")
    with private_randomness(again.seeds[0]):
        played = film._play(policy, make(TASK), again.seeds[0], lambda: None)
    assert (played["return"], played["frames"]) == (alone, 21)


@pytest.mark.parametrize("name", ["cvpo", "ppo_lag"])
def test_an_evaluation_says_whether_its_actions_are_sampled(trained, name, tmp_path, capsys):
    command = ["evaluate", str(trained[name]), "--episodes", "2", "--quiet"]
    for options, sampled in (([], name == "ppo_lag"), (["--stochastic"], True)):
        file = tmp_path / f"{len(options)}.json"
        assert main([*command, *options, "--json", str(file)]) == 0
        kind = "stochastic" if sampled else "deterministic"
        assert f"2 {kind} episodes" in capsys.readouterr().out
        assert json.loads(file.read_text())["stochastic"] is sampled


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", ["cvpo", "ppo_lag"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_an_exported_policy_acts_as_evaluations_do(trained, name, form, tmp_path, capsys):
    path = tmp_path / f"policy.{form}"
    exported = export_policy(trained[name], path, format=form)
    assert exported.difference <= 1e-5
    output = "action" if name == "cvpo" else "probabilities"
    assert exported.metadata["output"] == output
    assert (exported.metadata["num_actions"], exported.metadata["first_action"]) == (2, 3)
    obs = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    if form == "onnx":
        answer = onnxruntime.InferenceSession(path).run([output], {"obs": obs})[0]
    else:
        answer = torch.jit.load(path)(torch.from_numpy(obs)).numpy()
    policy = load_policy(trained[name])
    if name == "cvpo":
        assert exported.difference == 0
        assert answer.dtype == np.int64
        assert answer.tolist() == [policy.compute_action(x) for x in obs]
    else:
        expected = policy.acting_distribution(obs)[0].probs.detach().numpy()
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)
    if (name, form) == ("ppo_lag", "onnx"):
        program = re.findall(r"^```python\n(.*?)^```$", EXPORT_PAGE.read_text(), re.DOTALL | re.MULTILINE)[-1]
        names = {"session": onnxruntime.InferenceSession(path), "obs": obs, "first_action": 3}
        exec(program, names | {"generator": np.random.default_rng(0)}, names)
        assert (len(names["action"]), set(names["action"])) == (50, {3, 4})
    assert main(["export", str(trained[name]), "--format", form, "--out", str(tmp_path / f"b.{form}")]) == 0
    assert ("to actions [B]" if name == "cvpo" else "to probabilities [B, 2]") in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cvpo", "ppo_lag"])
def test_a_policy_is_diagnosed(trained, name, tmp_path, capsys):
    report = diagnose(trained[name], episodes=2, states=2, actions=2)
    kinds = [report["episodes"][kind]["returns"] for kind in ("stochastic", "deterministic")]
    assert report["samples_in_evaluations"] == (name == "ppo_lag") == (kinds[0] == kinds[1])
    assert sum(report["actions"]["shares"]) == pytest.approx(1.0)
    assert (report["critic"]["kind"], len(report["actions"]["shares"])) == ("q" if name == "cvpo" else "v", 2)
    command = ["diagnose", str(trained[name]), "--episodes", "2", "--states", "0", "--out", str(tmp_path)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "share of each action: " in out
    assert f"2 stochastic and 2 {'deterministic' if name == 'cvpo' else 'evaluation'} episodes" in out
    assert (tmp_path / "diagnosis.png").stat().st_size


@pytest.mark.parametrize("settings", [{"workers": 2}, {"workers": 0}])
def test_processes_change_no_number(settings, tmp_path):
    done = run(
        small_config("trpo_lag", TASK, steps=160, selections=1, **settings),
        out=tmp_path, show_progress=False, cores=2,
    )  # fmt: skip
    plain = run(
        small_config("trpo_lag", TASK, steps=160, selections=1),
        out=tmp_path, show_progress=False, cores=1,
    )  # fmt: skip
    assert done.result["last"]["returns"] == plain.result["last"]["returns"]


def test_a_policy_of_other_actions_is_not_played(trained, tmp_path):
    with pytest.raises(ValueError, match=r"KnownOptimumDiscrete-v0 has \[8\] and \[3\]"):
        evaluate(trained["cvpo"], task="KnownOptimumDiscrete-v0", episodes=2)
    with pytest.raises(ValueError, match=r"ToyLine-v0 has \[2\] and \[1\]"):
        evaluate(trained["cvpo"], task="ToyLine-v0", episodes=2)


def test_a_spec_is_saved_and_checked(trained):
    data = read_checkpoint(trained["cvpo"] / "checkpoints" / "last.pt")["spec"]
    assert (data["num_actions"], data["first_action"], data["action_low"]) == (2, 3, [])
    spec = TaskSpec.from_dict(data)
    assert spec.as_dict() == data
    assert (spec.act_dim, str(spec.action_space)) == (2, "Discrete(2, start=3)")


def test_actions_of_a_saved_file_must_fit_its_weights(trained, tmp_path):
    policy, config, spec = load_experiment(trained["cvpo"])
    for changes in ({"num_actions": 5}, {"action_low": (0.0,), "action_high": (1.0,)}):
        path = tmp_path / "edited.pt"
        counters = {"env_step": 0, "gradient_step": 0, "episode": 0}
        save_checkpoint(path, policy, config=config, spec=replace(spec, **changes), counters=counters)
        with pytest.raises(CheckpointError):
            load_policy(path)


def test_the_benchmark_judges_policies_exactly(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("discrete_optimum", BENCHMARK)
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["discrete_optimum.py", "--policies", "cpo,cvpo", "--steps", "800"])
    assert module.main() in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[-2:]] == ["cpo", "cvpo"]
