"""Whole runs on a toy task: folders, files, results, checkpoints, interruption, bad input."""

import csv
import json
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys.policies import assert_same_state
from toys.settings import small_config

from fsrl_ext.errors import CheckpointError, NonFiniteError, RunFolderError
from fsrl_ext.experiment import ExperimentConfig, load_policy, make_config, run
from fsrl_ext.experiment.training.checkpoint import read_checkpoint, write_checked
from fsrl_ext.report import read_progress, read_result, result_table


def small(task="ToyLine-v0", **settings):
    """Return the config of a run of CVPO with three selections and 240 gradient steps."""
    longer = {"steps": 1200, "selections": 3, "update_per_step": 0.2, "final_episodes": 6, "cost_limit": 5.0}
    return small_config("cvpo", task, **{**longer, **settings})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(small(), out=tmp_path_factory.mktemp("runs"), show_progress=False)


def test_run_folder_holds_what_is_promised(done):
    assert done.folder.name == "ToyLine-v0-cvpo-seed0-1"
    files = {str(p.relative_to(done.folder)) for p in done.folder.rglob("*") if p.is_file()}
    assert {"config.json", "progress.csv", "result.json", "curves.png"} <= files
    assert {"checkpoints/best.pt", "checkpoints/last.pt"} <= files
    assert any(f.startswith("tensorboard/events") for f in files)
    assert (done.folder / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_config_file_gives_the_config_back(done):
    data = json.loads((done.folder / "config.json").read_text())
    assert data.pop("command") == done.result["command"]
    assert ExperimentConfig.from_dict(data) == small()


def test_a_run_without_a_limit_writes_strict_json_and_a_command_that_runs(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = small_config("sac", steps=160, selections=1)
    first = run(config, show_progress=False)
    for file in (first.folder / "config.json", first.folder / "result.json"):
        strict = json.loads(file.read_text(), parse_constant=pytest.fail)
        assert strict.get("config", strict)["cost_limit"] == ["Infinity"]
    assert read_result(first.folder)["config"]["cost_limit"] == [math.inf]
    assert ExperimentConfig.from_dict(read_result(first.folder)["config"]) == config
    exec(read_result(first.folder)["command"], {})
    (again,) = [x for x in (tmp_path / "runs").iterdir() if x != tmp_path / first.folder]
    assert read_result(again)["last"] == first.result["last"]
    assert read_result(again)["command"] == first.result["command"]


def test_the_noted_command_starts_from_the_same_policy(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run(small(steps=80, selections=1), init_from=done.folder, show_progress=False)
    exec(first.result["command"], {})
    again = read_result(first.folder.with_name("ToyLine-v0-cvpo-seed0-2"))
    assert again["init_from"] == first.result["init_from"]
    assert again["last"] == first.result["last"]


def test_curves_are_over_environment_steps(done):
    progress = read_progress(done.folder)
    steps = progress["env_step"]
    assert steps[-1] == 1200
    assert (np.diff(steps) > 0).all()
    tested = steps[~np.isnan(progress["test/return"])]
    np.testing.assert_array_equal(tested, [400, 800, 1200])
    with (done.folder / "progress.csv").open() as file:
        assert len(list(csv.reader(file))) == 1 + len(steps)
    events = EventAccumulator(str(done.folder / "tensorboard")).Reload()
    logged = events.Scalars("update/estep/kl_relative")
    np.testing.assert_array_equal([e.step for e in logged], steps)
    np.testing.assert_allclose([e.value for e in logged], progress["update/estep/kl_relative"], rtol=1e-5)


def test_curves_show_what_the_algorithm_did(done):
    progress = read_progress(done.folder)
    statuses = ["slack", "active", "infeasible", "flat", "saturated"]
    shares = sum(progress[f"update/estep/{s}"] for s in statuses)
    np.testing.assert_allclose(shares, 1.0)
    for name in (
        "update/estep/temperature",
        "update/constraint/multiplier",
        "update/constraint/expected_cost",
        "update/constraint/measured_cost",
        "update/mstep/kl_mean_relative",
        "train/costs_stat/0/mean",
        "train/discounted_cost/0",
    ):
        assert np.isfinite(progress[name]).any(), name
    costs = progress["train/discounted_cost/0"]
    limit = sum(0.9**t for t in range(20))  # every step costs at most one
    assert np.nanmax(costs) <= limit


def test_result_judges_both_policies(done):
    result = done.result
    assert result == json.loads((done.folder / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["env_step"] == 1200
    assert result["gradient_step"] == 240
    assert len(result["selections"]) == 3
    for key in ("best", "last"):
        assert result[key]["episodes"] == 6
        # On this task the return decides the cost: 20 steps of (1 + a) / 2.
        cost = (20 + result[key]["return_mean"]) / 2
        assert result[key]["cost_mean"] == pytest.approx([cost], rel=1e-5)
        assert np.mean(result[key]["returns"]) == result[key]["return_mean"]
        assert np.mean(result[key]["costs"], 0).tolist() == result[key]["cost_mean"]
    assert "selected as feasible  feasible now" in result_table(result)


def test_best_checkpoint_is_the_policy_that_was_judged(done):
    policy = load_policy(done.folder)
    data = read_checkpoint(done.folder / "checkpoints" / "best.pt")
    assert data["counters"]["env_step"] == done.result["best"]["env_step"]
    obs = np.zeros(2, np.float32)
    assert policy.compute_action(obs) == policy.compute_action(obs)


def test_loaded_policy_acts_the_same_in_a_new_process(done):
    obs = [0.3, -0.7]
    here = load_policy(done.folder).compute_action(np.array(obs, np.float32))
    code = (
        "import sys, numpy as np\n"
        "from fsrl_ext.experiment import load_policy\n"
        f"print(load_policy(sys.argv[1]).compute_action(np.array({obs}, np.float32)).tobytes().hex())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(done.folder)], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == np.asarray(here).tobytes().hex()


def test_checkpoint_holds_everything_and_needs_no_pickle(done):
    path = done.folder / "checkpoints" / "last.pt"
    data = torch.load(path, weights_only=True)
    assert {"policy", "optimisers", "config", "spec", "counters", "versions"} <= set(data)
    assert set(data["optimisers"]) == {"actor_optim", "critic_optim"}
    assert data["optimisers"]["actor_optim"]["state"][0]["step"] == 240
    assert any(k.startswith("target_critic") for k in data["policy"])
    assert "kl_multipliers" in data["policy"]


def test_damaged_checkpoints_are_refused_or_equal(done, tmp_path):
    whole = (done.folder / "checkpoints" / "best.pt").read_bytes()
    reference = load_policy(done.folder).state_dict()
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] ^= int(rng.integers(1, 256))
        path = tmp_path / "damaged.pt"
        path.write_bytes(damaged)
        try:
            loaded = load_policy(path).state_dict()
        except CheckpointError as error:
            refused.append(str(error))
            continue
        assert_same_state(reference, loaded)
    assert len(refused) > 25
    assert all(len(message.splitlines()) == 1 for message in refused)


def test_settings_of_another_version_get_one_clear_line(done, tmp_path):
    data = torch.load(done.folder / "checkpoints" / "best.pt", weights_only=True)
    data["config"]["policy_config"]["forgotten"] = 1.0
    write_checked(tmp_path / "old.pt", data, kind="checkpoint")
    with pytest.raises(CheckpointError, match=r"settings that this version does not have.*forgotten") as info:
        load_policy(tmp_path / "old.pt")
    assert len(str(info.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_foreign_files_get_one_clear_line(tmp_path, content):
    path = tmp_path / "foreign.pt"
    if content is None:
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a checkpoint") as info:
        load_policy(path)
    assert len(str(info.value).splitlines()) == 1
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_policy(tmp_path / "missing.pt")


def test_same_seed_same_curves(done, tmp_path):
    again = run(small(), out=tmp_path, show_progress=False)
    first, second = read_progress(done.folder), read_progress(again.folder)
    for name, values in first.items():
        if "time" not in name and "speed" not in name:
            np.testing.assert_array_equal(values, second[name], err_msg=name)
    assert first["update/loss/actor"][-1] != 0
    other = run(small(seed=1), out=tmp_path, show_progress=False)
    assert not np.array_equal(first["update/loss/actor"], read_progress(other.folder)["update/loss/actor"])


@pytest.mark.parametrize(
    "settings",
    [
        {"collect_ahead": True},
        {"workers": 4},
        {"workers": 4, "collect_ahead": True},
    ],
)
def test_collecting_in_other_processes_gives_the_same_run_twice(settings, tmp_path):
    first, second = (run(small(**settings), out=tmp_path, show_progress=False) for _ in range(2))
    assert first.result["env_step"] == 1200
    assert first.result["status"] == "finished"
    for name in ("selections", "best", "last", "share_above_limit"):
        assert first.result[name] == second.result[name]


def test_several_costs(tmp_path):
    config = small("ToyLineTwoCosts-v0", cost_limit=(5.0, 2.0), steps=400, selections=2)
    done = run(config, out=tmp_path, show_progress=False)
    cost = done.result["last"]["cost_mean"]
    assert cost[1] == pytest.approx(cost[0] / 2)
    progress = read_progress(done.folder)
    assert np.isfinite(progress["update/constraint/multiplier_1"]).any()
    assert np.isfinite(progress["test/cost/1"]).any()


def test_fresh_folders_count_up_and_names_are_never_taken_twice(tmp_path):
    config = small(steps=80, selections=1)
    names = [run(config, out=tmp_path, show_progress=False).folder.name for _ in range(2)]
    assert names == ["ToyLine-v0-cvpo-seed0-1", "ToyLine-v0-cvpo-seed0-2"]
    run(config, out=tmp_path, run_name="mine", show_progress=False)
    before = (tmp_path / "mine" / "result.json").read_text()
    with pytest.raises(RunFolderError, match="'mine' exists already"):
        run(config, out=tmp_path, run_name="mine", show_progress=False)
    assert (tmp_path / "mine" / "result.json").read_text() == before
    for name in ("../up", "a/b", "", ".."):
        with pytest.raises(RunFolderError, match="run_name must be a plain folder name"):
            run(config, out=tmp_path, run_name=name, show_progress=False)


def test_interruption_saves_the_best_policy(tmp_path, monkeypatch):
    from fsrl_ext.policy import CVPOPolicy

    learn, calls = CVPOPolicy.learn, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 180:
            raise KeyboardInterrupt
        return learn(self, *args, **kwargs)

    monkeypatch.setattr(CVPOPolicy, "learn", interrupted)
    done = run(small(), out=tmp_path, show_progress=False)
    assert done.status == "interrupted"
    assert done.result["env_step"] < 1200
    assert read_checkpoint(done.folder / "checkpoints" / "best.pt")["counters"]["env_step"] == 400
    assert (done.folder / "curves.png").exists()


def test_nan_stops_the_run_with_the_last_good_policy(tmp_path):
    with pytest.raises(NonFiniteError, match=r"rew of environment \d is not finite.*environment step"):
        run(small("ToyLineNaN-v0"), out=tmp_path, run_name="nan", show_progress=False)
    data = read_checkpoint(tmp_path / "nan" / "checkpoints" / "last.pt")
    assert all(v.isfinite().all() for k, v in data["policy"].items() if k != "_extra_state")
    assert not (tmp_path / "nan" / "result.json").exists()


def test_poisoned_parameters_never_replace_the_last_good_ones(tmp_path, monkeypatch):
    from fsrl_ext.policy import CVPOPolicy

    learn, calls = CVPOPolicy.learn, []

    def poisoned(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 100:
            with torch.no_grad():
                self.critic.layers[0].bias[0] = float("nan")
        return learn(self, *args, **kwargs)

    monkeypatch.setattr(CVPOPolicy, "learn", poisoned)
    with pytest.raises(NonFiniteError, match=r"critic loss is nan.*gradient step 100, environment step"):
        run(small(), out=tmp_path, run_name="poisoned", show_progress=False)
    data = read_checkpoint(tmp_path / "poisoned" / "checkpoints" / "last.pt")
    assert data["counters"]["env_step"] == 400
    assert all(v.isfinite().all() for k, v in data["policy"].items() if k != "_extra_state")


@pytest.mark.parametrize("task", ["ToyEarlyEnd-v0", "ToySeedLength-v0"])
@pytest.mark.parametrize("collect_ahead", [False, True])
def test_early_ends_are_warned_about_once_declared_or_not(task, collect_ahead, tmp_path):
    config = small(task, steps=160, selections=1, collect_ahead=collect_ahead, cost_level="critic")
    with pytest.warns(
        UserWarning, match=r"training episodes \(100%\) ended before max_episode_steps"
    ) as caught:
        run(config, out=tmp_path, show_progress=False)
    assert sum("max_episode_steps" in str(w.message) for w in caught) == 1


def test_early_ends_without_a_limit_are_no_matter(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = small("ToyEarlyEnd-v0", steps=160, selections=1, cost_limit=math.inf, cost_level="critic")
        run(config, out=tmp_path, show_progress=False)


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("SafetyCarCircel-v0", {}, "unknown task 'SafetyCarCircel-v0'; did you mean SafetyCarCircle-v0"),
        ("ToyGears-v0", {}, "ToyGears-v0 has the action space MultiDiscrete"),
        ("ToyNoCost-v0", {}, "ToyNoCost-v0"),
        ("ToyLine-v0", {"cost_limit": (1.0, 2.0)}, "ToyLine-v0 reports 1, got 2"),
        ("ToyLine-v0", {"device": "warp"}, "device 'warp' cannot be used"),
    ],
)
def test_unusable_input_writes_nothing(tmp_path, task, settings, words):
    with pytest.raises(ValueError, match=words):
        run(small(task, **settings), out=tmp_path / "runs", show_progress=False)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cost_limit": -3}, "cost_limit must be >= 0.*got -3"),
        ({"cost_limit": math.nan}, "cost_limit must be >= 0.*got nan"),
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
        ({"seed": -1}, r"seed must be a whole number in \[0, 2\*\*32\), got -1"),
        ({"kl_bonud": 0.1}, "unknown setting 'kl_bonud'; did you mean kl_bound"),
        ({"hidden_sizes": ()}, "hidden_sizes must be"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        small(**settings)


def test_unknown_policy_suggests_the_nearest():
    with pytest.raises(ValueError, match="unknown policy 'cvop'; did you mean cvpo"):
        make_config("cvop", "ToyLine-v0")
