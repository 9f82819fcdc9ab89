"""The registry: what each algorithm can set, what a row must be, rows of other packages."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys.settings import META_NAMES

from fsrl_ext import cli
from fsrl_ext.cli.policy_names import BUILT_IN
from fsrl_ext.experiment import Algorithm, ExperimentConfig, make_config, register_algorithm
from fsrl_ext.experiment.algorithms import meta, offpolicy, onpolicy
from fsrl_ext.experiment.algorithms.offpolicy import OffpolicyTraining, deterministic_networks
from fsrl_ext.experiment.registry import RESERVED, algorithm, algorithms
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.sweeps.description import KEYS
from fsrl_ext.policy import DDPGLagConfig, DDPGLagPolicy

# By name the settings of version 0.1.0, whose rows said what an algorithm does not use.
BEFORE = json.loads((Path(__file__).parent / "data" / "v0_1_0" / "settings.json").read_text())
# The name of a meta-learner says now whether steps are constrained or a multiplier prices costs, and one
# without constrained steps has no settings about them.
GONE = {name: {"constraint"} for name in META_NAMES}
GONE["maml_lag"] = GONE["maml_trpo"] = {"constraint", "limit_gradient", "outer_constraint"}
GONE["cvpo"] = {"cost_calibration"}
_DATA = {"normalise_signals"}
_ONPOLICY = _DATA | {"cost_gamma", "deterministic_eval"}
_OFFPOLICY = _DATA | {
    "bound_targets", "time_limits", "normalise_observations", "normalise_steps", "cost_gamma", "goal_reward",
    "cost_estimation_step",
}  # fmt: skip
_LEVEL = {"cost_level", "cost_level_episodes"}
_RUN = {"selection_min_episodes", "costs", "actor", "critic", "limit_unit"}
_SINGLE = {"agents", "cost_unit", "network", "action_repeat"}
_RECURRENT = {"gru_size", "bptt_steps"}
NEW = {
    **dict.fromkeys(("sac", "ddpg", "td3"), _OFFPOLICY),
    **{name: _OFFPOLICY | _LEVEL | {"cost_margin"} for name in ("sac_lag", "ddpg_lag", "td3_lag")},
    **dict.fromkeys(("trpo", "ppo"), _ONPOLICY | _RECURRENT),
    **{name: _ONPOLICY | {"fit_critic_first"} for name in ("maml_trpo", "maml_lag")},
    **{name: _ONPOLICY | _RECURRENT | {"cost_margin"} for name in ("trpo_lag", "ppo_lag", "focops")},
    "cpo": _ONPOLICY | _RECURRENT | {"step_backend", "margin_rate"},
    **{name: _ONPOLICY | {"step_backend", "fit_critic_first"} for name in ("meta_cpo", "multitask_cpo")},
    "cvpo": _OFFPOLICY
    | _LEVEL
    | {"limit_approach", "recovery_share", "margin_rate", "action_sampling", "mean_range"},
}
MINE = {
    "summary": "mine", "policy": DDPGLagPolicy, "config": DDPGLagConfig, "training": OffpolicyTraining,
    "networks": deterministic_networks,
}  # fmt: skip


def test_no_algorithm_is_missing_and_their_order_is_kept():
    assert list(algorithms()) == list(BEFORE)


@pytest.mark.parametrize("name", list(BEFORE))
def test_what_could_be_set_can_be_set_and_nothing_else(name):
    assert sorted(list_settings(name)) == sorted(
        set(BEFORE[name]) - GONE.get(name, set())
        | NEW.get(name, set())
        | _RUN
        | (set() if name in META_NAMES else _SINGLE)
    )


@pytest.mark.parametrize("name", list(BEFORE))
def test_what_a_class_lacks_cannot_be_set(name):
    task = "MetaAim" if name in META_NAMES else "ToyLine-v0"
    for lacking in {x for names in BEFORE.values() for x in names} - set(list_settings(name)):
        with pytest.raises(ValueError, match=f"unknown setting '{lacking}'"):
            make_config(name, task, **{lacking: 1})


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match="unknown policy 'sad'; did you mean sac"):
        algorithm("sad")


def test_a_name_is_plain_and_taken_once():
    for name in ("my-sac", "", "a b"):
        with pytest.raises(ValueError, match="name must be of letters, digits and underscores, got"):
            register_algorithm(name, algorithm("sac_lag"))
    with pytest.raises(ValueError, match="there is an algorithm 'sac_lag' already"):
        register_algorithm("sac_lag", algorithm("sac_lag"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlapping(DDPGLagConfig):
    batch_size: int = 3
    """A setting of the training class, too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reserved(DDPGLagConfig):
    seed: int = 3
    """A setting of every run, too."""


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"policy": dict}, TypeError, "policy must be a subclass of BasePolicy, got <class 'dict'>"),
        ({"training": DDPGLagConfig}, TypeError, "training must be a subclass of TrainingConfig"),
        ({"config": int}, TypeError, "config must be a dataclass, got <class 'int'>"),
        ({"config": Overlapping}, ValueError, "must not share a setting, got batch_size in both Overlapping"),
        ({"config": Reserved}, ValueError, "name of an option of all algorithms, got seed in Reserved"),
    ],
)
def test_a_row_checks_what_it_is_made_of(change, error, words):
    with pytest.raises(error, match=words):
        Algorithm(**(MINE | change))


def test_names_of_the_run_and_of_the_command_lines_are_reserved():
    train = cli._parser(["train", "cvpo"]).parse_args(["train", "cvpo", "ToyLine-v0"])
    sweep = cli._parser([]).parse_args(["sweep"])
    fields = {x.name for x in dataclasses.fields(ExperimentConfig)}
    options = {*vars(train), *vars(sweep), "help", "run_name", "init_from", "for"} - {"only_for"}
    assert fields | options | set(KEYS) == RESERVED


def test_defaults_of_a_row_are_settings_of_its_classes():
    row = Algorithm(**MINE, task_defaults=[("*", "ToyLine-v0", {"kl_bonud": 1.0})])
    register_algorithm("mistaken", row)
    try:
        make_config("mistaken", "SafetyBallCircle-v0")
        with pytest.raises(ValueError, match="unknown setting 'kl_bonud'"):
            make_config("mistaken", "ToyLine-v0")
    finally:
        del _rows()["mistaken"]


def _rows():
    from fsrl_ext.experiment import registry

    return registry._algorithms


def installed(folder, name, entry_point, code=None):
    """The metadata that pip writes of a package with one entry point, and the package's module."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fsrl_ext.algorithms]\n{entry_point}\n")
    if code is not None:
        (folder / f"{name}.py").write_text(code)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """The finished command ``list policies`` beside packages, most of which cannot be used."""
    folder = tmp_path_factory.mktemp("packages")
    installed(folder, "lost", "lost_sac = lost:ALGORITHM")
    installed(folder, "broken", "broken_sac = broken:ALGORITHM", "raise RuntimeError('no licence\\nhere')")
    installed(folder, "other", "other_sac = other:ALGORITHM", "ALGORITHM = 3")
    installed(
        folder,
        "good",
        "good_sac = good:ALGORITHM",
        # A row may start from another one, which is a look-up while the packages are loaded.
        "import dataclasses\nfrom fsrl_ext.experiment.registry import algorithm\n"
        "ALGORITHM = dataclasses.replace(algorithm('sac_lag'), summary='Good SAC')\n",
    )
    taken = "from fsrl_ext.experiment.registry import algorithm\nALGORITHM = algorithm('sac_lag')\n"
    installed(folder, "greedy", "cvpo = greedy:ALGORITHM", taken)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", ""), os.getcwd()])
    return subprocess.run(
        [sys.executable, "-m", "fsrl_ext.cli", "list", "policies"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_a_package_that_cannot_be_loaded_is_a_warning_and_the_others_work(listed):
    assert listed.returncode == 0, listed.stderr
    assert "Good SAC" in listed.stdout
    assert "cvpo" in listed.stdout
    errors = sorted(listed.stderr.splitlines())
    assert len(errors) == 4
    for line, name, reason in zip(
        [line for line in errors if "greedy" not in line],
        ("broken", "lost", "other"),
        (
            "RuntimeError: no licence",
            "ModuleNotFoundError: No module named 'lost'",
            "must be an Algorithm, got 3",
        ),
        strict=True,
    ):
        assert f"the algorithm '{name}_sac' of the package {name} cannot be used" in line
        assert reason in line


def test_a_package_cannot_take_a_name(listed):
    (line,) = [line for line in listed.stderr.splitlines() if "greedy" in line]
    assert "the algorithm 'cvpo' of the package greedy cannot be used" in line
    assert "there is an algorithm 'cvpo' already" in line
    assert listed.stdout.count("Constrained Variational Policy Optimization") == 1


def test_the_command_line_knows_the_names_of_the_built_in_algorithms():
    assert [*offpolicy.ALGORITHMS, *onpolicy.ALGORITHMS, *meta.ALGORITHMS] == list(BUILT_IN)
