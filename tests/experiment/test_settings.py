"""Where a setting comes from: defaults, task, preset, user, in this order; and from text."""

import dataclasses
import math

import numpy as np
import pytest
from toys.settings import META_NAMES, small_config

from fsrl_ext.experiment import ExperimentConfig, make_config, registry, run
from fsrl_ext.experiment.algorithms.offpolicy import CVPOTraining, OffpolicyTraining
from fsrl_ext.experiment.explained import Default, explained_defaults
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.experiment.settings import as_text, list_settings
from fsrl_ext.functional.returns import decayed_cost_limit
from fsrl_ext.policy import CVPOConfig, DDPGLagConfig, TD3LagConfig
from fsrl_ext.report import read_progress


def test_tasks_have_their_suites_defaults():
    bullet = make_config("cvpo", "SafetyCarCircle-v0")
    assert bullet.cost_limit == (10.0,)
    assert bullet.policy_config == CVPOConfig(cost_margin=0.5)
    assert bullet.training == CVPOTraining()
    circle = make_config("cvpo", "SafetyPointCircle1-v0")
    assert circle.cost_limit == (25.0,)
    assert (circle.policy_config.gamma, circle.policy_config.estimation_step) == (0.99, 3)
    family = make_config("cvpo", "SafetyPointStcircle1-v0")
    assert (family.cost_limit, family.policy_config.gamma) == ((25.0,), 0.99)
    for name in ("SafetyAntVelocity-v1", "SafetyAntVelocity-2x4-v0"):
        velocity = make_config("cvpo", name)
        assert (velocity.policy_config.gamma, velocity.cost_limit) == (0.98, (25.0,))
    assert make_config("cvpo", "Mine-v0").cost_limit == (10.0,)


def test_user_wins_over_preset_and_preset_over_task():
    paper = make_config("cvpo", "SafetyPointCircle1-v0", preset="paper")
    assert paper.policy_config.solver == "slsqp"
    assert paper.policy_config.old_policy == "polyak"
    assert paper.policy_config.estimation_step == 1  # the task says 3
    assert paper.cost_limit == (25.0,)
    mine = make_config("cvpo", "SafetyPointCircle1-v0", preset="paper", num_samples=8, cost_limit=3)
    assert (mine.policy_config.num_samples, mine.cost_limit) == (8, (3.0,))


def test_every_preset_makes_a_config():
    presets = [(name, preset) for name, row in algorithms().items() for preset in row.presets]
    plain = ["cvpo", "sac_lag", "ddpg_lag", "td3_lag", "sac", "ddpg", "td3", "meta_cpo"]
    assert sorted(presets) == sorted(
        [*((name, "paper") for name in plain), ("sac_lag", "cal"), ("sac_lag", "cal_paper")]
    )
    for name, preset in presets:
        task = "SafetyPointStcircle" if name == "meta_cpo" else "SafetyCarCircle-v0"
        assert make_config(name, task, preset=preset) != make_config(name, task)


def settings_of(config):
    """Return the settings of policy and training by name."""
    return {**dataclasses.asdict(config.policy_config), **dataclasses.asdict(config.training)}


def test_the_paper_preset_holds_the_authors_settings():
    """Of their configuration file, code and scripts; what scales with the likelihood is theirs times N."""
    samples, bound = 32, 1e-3
    expected = {
        "kl_bound": 0.1, "num_samples": samples, "solver": "slsqp", "threshold": "paper", "cost_margin": 0.0,
        "cost_level": "critic", "cost_level_rate": 1.0, "multiplier_max": None,
        "normalise_signals": False, "normalise_observations": False, "bound_targets": False,
        "kl_bound_mean": bound, "kl_bound_scale": bound, "mstep_iterations": 6,
        "kl_multiplier_lr": pytest.approx((1.0 * bound * samples, 100.0 * bound * samples)),
        "kl_multiplier_max": pytest.approx((0.1 * samples, 10.0 * samples)),
        "max_grad_norm": pytest.approx(0.01 * samples),
        "old_policy": "polyak", "old_policy_tau": 0.005, "tau": 0.005, "average_tau": None,
        "gamma": 0.99, "estimation_step": 1, "reward_ensemble": 2, "cost_ensemble": 1, "shared_body": False,
        "covariance": "full", "initial_std": pytest.approx(math.log(2.0), abs=1e-3),
        "hidden_sizes": (256, 256), "critic_hidden_sizes": None, "actor_lr": 2e-3, "critic_lr": 1e-3,
        "batch_size": 300, "buffer_size": 80_000, "step_per_collect": 20 * 400, "warmup_steps": 4000,
        "update_per_step": pytest.approx(40 / 300),
    }  # fmt: skip
    for task in ("SafetyCarButton1-v0", "SafetyCarCircle-v0"):
        values = settings_of(make_config("cvpo", task, preset="paper"))
        assert {name: values[name] for name in expected} == expected


def test_the_cal_preset_holds_the_authors_settings():
    expected = {
        "augmented_penalty": 2.5 * 10.0, "cost_ensemble": 4, "cost_reduction": "ucb", "ucb_scale": 0.5,
        "cost_targets": "own", "multiplier_source": "critic", "multiplier_method": "ascent",
        "multiplier_lr": pytest.approx(2.5 * 3e-4), "multiplier_init": 0.6931, "threshold": "paper",
        "rescale": False, "cost_margin": 0.0, "cost_level": "critic", "normalise_signals": False,
        "normalise_observations": False,
        "bound_targets": False,
    }  # fmt: skip
    values = settings_of(make_config("sac_lag", "SafetyCarButton1-v0", preset="cal"))
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["sac_lag", "ddpg_lag", "td3_lag"])
def test_the_baselines_paper_presets_hold_the_authors_settings(name):
    """Of their configuration file; their gains are per unit of cost, and ours times the threshold."""
    threshold = 10 / 400 * (1 - 0.99**400) / (1 - 0.99)
    expected = {
        "multiplier_source": "critic", "multiplier_method": "pid", "rescale": False, "cost_margin": 0.0,
        "multiplier_gains": pytest.approx([x * threshold for x in (0.1, 0.003, 0.001)], rel=1e-3),
        "cost_level": "critic", "threshold": "paper", "gamma": 0.99, "tau": 0.005, "estimation_step": 1,
        "hidden_sizes": (256, 256), "critic_lr": 1e-3, "batch_size": 300, "buffer_size": 20_000,
        "step_per_collect": 20 * 400, "warmup_steps": 4000, "update_per_step": pytest.approx(40 / 300),
        "cost_ensemble": 1, "normalise_signals": False,
    } | {
        "sac_lag": {"alpha": 0.0085, "entropy": "fixed", "actor_lr": 1e-3, "reward_ensemble": 2},
        "ddpg_lag": {"actor_lr": 3e-4, "reward_ensemble": 1, "exploration_std": 0.1},
        "td3_lag": {"actor_lr": 1e-3, "reward_ensemble": 2, "policy_delay": 2, "target_std": 0.2},
    }[name]  # fmt: skip
    values = settings_of(make_config(name, "SafetyCarButtonFixed-v0", preset="paper"))
    assert {name: values[name] for name in expected} == expected
    plain = settings_of(make_config(name.removesuffix("_lag"), "SafetyCarButtonFixed-v0", preset="paper"))
    assert plain == {name: values[name] for name in plain}


def test_cal_with_the_authors_ratio_of_updates():
    expected = {
        "update_per_step": 10.0, "batch_size": 12, "hidden_sizes": (256, 256), "actor_lr": 3e-4,
        "warmup_steps": 5000, "buffer_size": 1_000_000, "tau": 0.0025, "cost_ensemble": 4,
    }  # fmt: skip
    values = settings_of(make_config("sac_lag", "SafetyCarButtonFixed-v0", preset="cal_paper"))
    assert {name: values[name] for name in expected} == expected


def test_a_run_with_the_paper_preset_stays_finite(tmp_path):
    small = {"num_envs": 4, "selections": 1, "selection_episodes": 2, "final_episodes": 2}
    data = {"steps": 600, "step_per_collect": 100, "warmup_steps": 200}
    config = make_config("cvpo", "ToyLine-v0", preset="paper", cost_limit=5.0, **small, **data)
    done = run(config, out=tmp_path, show_progress=False)
    progress = read_progress(done.folder)
    for name in ("loss/actor", "loss/critic_cost", "mstep/multiplier_scale", "policy/std"):
        values = progress[f"update/{name}"]
        values = values[~np.isnan(values)]  # rows of other kinds have no entry
        assert len(values) >= 3
        assert np.isfinite(values).all()
    assert np.isfinite(done.result["last"]["return_mean"])


TASKS = (
    "SafetyCarCircle-v0",
    "SafetyBallCircle-v0",
    "SafetyPointGoal1-v0",
    "SafetyAntVelocity-v1",
    "Mine-v0",
)


@pytest.mark.parametrize("name", list(algorithms()))
def test_explained_defaults_are_what_runs(name):
    tasks = ("SafetyPointStcircle", "MetaAim") if name in META_NAMES else TASKS
    for preset in ("tuned", *algorithms()[name].presets):
        for task in tasks:
            config = make_config(name, task, preset=preset)
            defaults = explained_defaults(name, task, preset=preset)
            for key, setting in list_settings(name).items():
                if key in ("policy", "task"):
                    continue
                section = {"run": config, "policy": config.policy_config, "training": config.training}
                value = getattr(section[setting.section], key)
                assert defaults[key].value == value, (task, preset, key)
                assert setting.parse(as_text(value)) == value, key


def test_explained_defaults_say_where_they_come_from():
    assert explained_defaults("cpo", "SafetyCarCircle-v0")["cost_margin"] == Default(0.2, "task")
    assert explained_defaults("cpo", "SafetyPointGoal1-v0")["cost_margin"] == Default(0.0)
    anywhere = explained_defaults("cvpo")
    assert anywhere["gamma"] == Default(
        0.97,
        elsewhere={
            "safety-gymnasium tasks": 0.99,
            "meta tasks": 0.99,
            "*Velocity-v1": 0.98,
            "safety-gymnasium-agents tasks": 0.98,
        },
    )
    assert anywhere["cost_margin"] == Default(
        0.0, elsewhere={"bullet-safety-gym tasks": 0.5, "*[0-2]-v0": 0.2}
    )
    paper = explained_defaults("cvpo", "SafetyPointGoal1-v0", preset="paper")
    assert (paper["estimation_step"], paper["cost_limit"]) == (Default(1, "preset"), Default((25.0,), "task"))
    assert explained_defaults("sac", "SafetyPointGoal1-v0")["cost_limit"] == Default((math.inf,))


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="preset must be one of tuned, paper, got 'papre'; did you mean"):
        make_config("cvpo", "SafetyCarCircle-v0", preset="papre")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cost_limit", "10,25.5", (10.0, 25.5)),
        ("cost_limit", "inf", (float("inf"),)),
        ("hidden_sizes", "64,32", (64, 32)),
        ("kl_multiplier_max", "3.2,320", (3.2, 320.0)),
        ("shared_body", "True", True),
        ("threshold", "stationary", "stationary"),
        ("multiplier_max", "none", None),
        ("multiplier_max", "2.5", 2.5),
        ("cost_limit_start", "none", None),
        ("cost_limit_start", "50", (50.0,)),
        ("steps", "300_000", 300_000),
    ],
)
def test_settings_from_text(name, text, value):
    assert list_settings()[name].parse(text) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("steps", "many", "steps must be a whole number, got 'many'"),
        ("gamma", "", "gamma must be a number, got ''"),
        ("threshold", "papers", "threshold must be one of auto, paper, stationary, finite, got 'papers'"),
        ("multiplier_max", "max", "multiplier_max must be a number or none, got 'max'"),
        ("hidden_sizes", "64,,32", "several separated by commas"),
    ],
)
def test_bad_text_is_named(name, text, words):
    with pytest.raises(ValueError, match=words):
        list_settings()[name].parse(text)


def test_digest_ignores_the_seed_and_nothing_that_matters():
    one = make_config("cvpo", "SafetyCarCircle-v0", seed=0)
    assert one.digest() == make_config("cvpo", "SafetyCarCircle-v0", seed=5).digest()
    assert one.digest() != make_config("cvpo", "SafetyCarCircle-v0", kl_bound=0.07).digest()
    assert one.digest() != make_config("cvpo", "SafetyBallCircle-v0").digest()


def test_cost_limit_decays_from_start_to_end():
    config = make_config(
        "cvpo", "SafetyCarCircle-v0", cost_limit=10, cost_limit_start=50, cost_limit_decay_steps=1000
    )
    assert config.scheduled_cost_limit(0) == (50.0,)
    assert config.scheduled_cost_limit(1000)[0] == pytest.approx(10.0, abs=0.3)
    assert decayed_cost_limit(50, 10, 200, 1000) == pytest.approx(10 + 40 * 0.36788, rel=1e-4)
    assert make_config("cvpo", "SafetyCarCircle-v0").scheduled_cost_limit(7) == (10.0,)
    with pytest.raises(ValueError, match="cost_limit_start must have 1 numbers"):
        make_config("cvpo", "SafetyCarCircle-v0", cost_limit_start=(1.0, 2.0))
    with pytest.raises(ValueError, match="decay_steps must be > 0, got 0"):
        decayed_cost_limit(50, 10, 0, 0)


@pytest.mark.parametrize("name", list(algorithms()))
def test_config_survives_json(name):
    limit = {"cost_limit_start": 40} if algorithms()[name].constrained else {}
    config = small_config(name, hidden_sizes=(8, 8), critic_hidden_sizes=(7,), **limit)
    assert ExperimentConfig.from_dict(config.as_dict()) == config


def test_configs_are_those_of_the_algorithm_if_not_given():
    config = ExperimentConfig(policy="td3_lag", task="ToyLine-v0", cost_limit=1.0)
    assert (config.policy_config, config.training) == (TD3LagConfig(), OffpolicyTraining())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undocumented(DDPGLagConfig):
    gamma: float = 0.5
    plain: int = 3
    several: list[float] = dataclasses.field(default_factory=list)


def test_settings_without_a_docstring_show_their_default(monkeypatch):
    # A class that was typed into an interpreter has no source code.
    typed = dataclasses.make_dataclass("Typed", [], bases=(Undocumented,), frozen=True, kw_only=True)
    for config in (Undocumented, typed):
        row = dataclasses.replace(algorithms()["ddpg_lag"], config=config)
        monkeypatch.setitem(registry._algorithms, "undocumented", row)
        settings = list_settings("undocumented")
        assert settings["gamma"].help.startswith("Discount factor")
        assert settings["plain"].help == ""
        defaults = explained_defaults("undocumented")
        assert [defaults[name].value for name in ("gamma", "plain", "several")] == [0.5, 3, []]
        with pytest.raises(ValueError, match=r"several must be set from Python, .*, got '1,2'"):
            settings["several"].parse("1,2")


def test_the_paper_preset_of_meta_cpo_limits_discounted_costs():
    paper = make_config("meta_cpo", "SafetyPointStcircle", preset="paper")
    assert (paper.cost_limit, paper.policy_config.limit_unit) == ((10.0,), "discounted")
    assert paper.policy_config.discount_of_costs == 0.99
    tuned = make_config("meta_cpo", "SafetyPointStcircle")
    assert (tuned.cost_limit, tuned.policy_config.limit_unit) == ((25.0,), "episode")
