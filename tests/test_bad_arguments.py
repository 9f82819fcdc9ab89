"""Arguments that cannot work are refused by name, with the value: public constructors, functions and configs.

Each entry of a table is a call that works. The tests replace one argument after the other by values that its
annotation does not allow, and by the values out of range that the tables list. Each call must raise a
``ValueError`` or a ``TypeError`` whose message has the argument's name and the value.
"""

import collections.abc
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.env import DummyVectorEnv
from tianshou.policy import BasePolicy
from toys.counting import RandomPolicy
from toys.every import EVERY, KEPT, make
from toys.tasks import build_aim

import fsrl_ext.policy
from fsrl_ext import env, experiment, trainer
from fsrl_ext.data import (
    AheadCollector,
    CostCollector,
    CostReplayBuffer,
    CostVectorReplayBuffer,
    EpisodeLog,
    MetaCollector,
    RayCollector,
)
from fsrl_ext.errors import checked
from fsrl_ext.experiment.registry import algorithms
from fsrl_ext.functional import (
    conjugate_gradient,
    constrained_step,
    estep,
    gaussian,
    meta_gradient,
    mstep,
    multiplier,
    returns,
    trust_region,
)
from fsrl_ext.net import (
    CategoricalActor,
    DeterministicActor,
    DiscreteCritic,
    EnsembleCritic,
    GaussianActor,
    ObservationNormaliser,
    OnpolicyActor,
    ValueCritic,
    reduce_cost,
    reduce_reward,
)

ONES, TWO = torch.ones(3, 2), torch.ones(2)
Q = {"q_reward": torch.zeros(3, 4), "q_cost": torch.zeros(1, 3, 4)}
DUAL = {**Q, "temperature": 1.0, "multipliers": torch.ones(1)}
ESTEP = {"kl_bound": 0.1, "cost_threshold": torch.ones(1)}
PRIOR = torch.full((3, 4), 0.25).log()
STATE = multiplier.initial_multipliers(2)
FLAGS = torch.zeros(5, dtype=torch.bool)
PARAMETER = torch.nn.Parameter(torch.zeros(2))


def surrogates():
    return trust_region.Surrogates(reward=0.0, costs=(), kl=0.0)


# Functions and constructors with arguments that work.
CALLS = {
    returns.cost_threshold: {"cost_limit": 1.0, "max_episode_steps": 10, "gamma": 0.9, "unit": "paper"},
    returns.discounted_steps: {"steps": 10.0, "gamma": 0.9},
    returns.steps_before: {"starts": np.ones(3, bool), "owners": np.zeros(3, int), "first_steps": np.ones(1)},
    returns.weighted_advantages: {"advantages": torch.ones(4, 1), "weights": torch.ones(4)},
    returns.decayed_cost_limit: {"start": 2.0, "end": 1.0, "step": 3, "decay_steps": 10},
    returns.floored_deviation: {"deviation": np.ones(2), "size": np.ones(2)},
    returns.integral_margin: {
        "margin": TWO, "cost": TWO, "aim": TWO, "rate": 0.1, "largest_excess": TWO, "largest": TWO,
    },
    returns.nstep_targets: {
        "signals": torch.ones(2, 5, 2), "alive": torch.ones(2, 5, dtype=torch.bool), "terminated": FLAGS,
        "bootstrap": torch.ones(5, 2), "gamma": 0.9, "bonus": torch.ones(2, 5),
    },
    returns.generalised_advantages: {
        "signals": torch.ones(5, 2), "values": torch.ones(5, 2), "next_values": torch.ones(5, 2),
        "terminated": FLAGS, "ends": FLAGS, "gamma": 0.9, "gae_lambda": 0.9,
    },
    multiplier.initial_multipliers: {"num_costs": 2, "value": 1.0, "integral_gain": 0.1},
    multiplier.dual_ascent: {"state": STATE, "cost": TWO, "limit": TWO, "lr": 0.1, "multiplier_max": 9.0},
    multiplier.pid_control: {
        "state": STATE, "cost": TWO, "limit": TWO, "gains": (1.0, 0.1, 0.0), "smoothing": 0.0,
        "multiplier_max": 9.0, "surplus_max": 1.0,
    },
    multiplier.augmented_multipliers: {"multipliers": TWO, "cost": TWO, "limit": TWO, "penalty": 1.0},
    multiplier.lagrangian_loss: {
        "loss": torch.ones(()), "cost": TWO, "multipliers": TWO, "rescale": True,
    },
    multiplier.lagrangian_advantage: {
        "advantages": torch.ones(4, 3), "multipliers": TWO, "rescale": True,
    },
    gaussian.log_density: {"mean": ONES, "std": ONES, "act": ONES},
    gaussian.entropy: {"std": ONES},
    gaussian.kl_divergence: {"mean": ONES, "std": ONES, "other_mean": ONES, "other_std": ONES},
    gaussian.decoupled_kl: {"mean_old": ONES, "scale_old": ONES, "mean": ONES, "scale": ONES},
    gaussian.log_det_scale: {"mean": ONES, "scale": ONES},
    gaussian.sample_actions: {"mean": ONES, "scale": ONES, "num_samples": 2},
    gaussian.squash: {"mean": ONES, "std": ONES, "noise": ONES},
    mstep.weighted_moments: {
        "weights": torch.ones(3, 4) / 4, "actions": torch.ones(3, 4, 2), "mean_old": ONES, "scale_old": ONES,
    },
    mstep.mstep_loss: {
        "moments": mstep.WeightedMoments(ONES, ONES), "mean_old": ONES, "scale_old": ONES, "mean": ONES,
        "scale": ONES, "kl": TWO, "kl_bound": TWO, "multipliers": TWO,
    },
    mstep.update_kl_multipliers: {
        "multipliers": TWO, "kl": TWO, "kl_bound": TWO, "lr": TWO, "multiplier_max": TWO,
    },
    mstep.categorical_mstep_loss: {
        "weights": torch.ones(3, 4) / 4, "log_old": PRIOR, "log_probs": PRIOR, "kl": torch.ones(1),
        "kl_bound": torch.ones(1), "multipliers": torch.ones(1),
    },
    estep.solve_dual: {**Q, **ESTEP, "multiplier_max": 1.0, "log_prior": PRIOR},
    estep.solve_dual_slsqp: {**Q, **ESTEP, "start": [1.0, 1.0], "log_prior": PRIOR},
    estep.boltzmann_weights: DUAL,
    estep.kl_to_uniform: {"weights": torch.ones(3, 4) / 4},
    estep.kl_to_prior: {"weights": torch.ones(3, 4) / 4, "log_prior": PRIOR},
    estep.dual_value: {**DUAL, **ESTEP},
    estep.dual_gradient: {**DUAL, **ESTEP},
    constrained_step.constrained_step: {
        "g": TWO, "a": torch.ones(1, 2), "b": torch.ones(1), "kl_bound": 0.1, "inverse_metric": None,
        "corner_tolerance": 1e-4, "backend": "exact",
    },
    conjugate_gradient.conjugate_gradient: {
        "matvec": lambda x: x, "y": TWO, "max_iterations": 3, "tolerance": 0.0,
    },
    conjugate_gradient.unflatten: {"flat": TWO, "like": {"x": TWO}},
    conjugate_gradient.flat_gradient: {
        "value": PARAMETER.sum(), "parameters": [PARAMETER], "create_graph": False,
    },
    conjugate_gradient.FisherVectorProduct: {
        "kl": PARAMETER.square().sum(), "parameters": [PARAMETER], "damping": 0.1,
    },
    conjugate_gradient.InverseMetric: {"matvec": lambda x: x, "max_iterations": 3, "tolerance": 0.0},
    trust_region.surrogate_gradients: {
        "loss": lambda phi: (phi.sum(), phi[:1]), "parameters": TWO, "create_graph": False,
    },
    trust_region.line_search: {
        "parameters": [PARAMETER], "step": TWO, "evaluate": surrogates, "kl_bound": 0.1, "cost_slack": [],
        "improve_reward": True, "max_backtracks": 1, "shrink": 0.5,
    },
    meta_gradient.inner_step: {
        "parameters": TWO, "loss": lambda phi: (phi.sum(), phi[:1]), "surplus": torch.zeros(1),
        "kl_bound": 0.1, "inverse_metric": None, "backend": "exact",
    },
    meta_gradient.meta_gradient: {
        "cotangents": ONES, "steps": [], "mode": "exact", "limit_gradient": "score",
    },
    meta_gradient.replay: {"theta": TWO, "steps": [], "limit_gradient": "score"},
    GaussianActor: {
        "obs_dim": 2, "act_dim": 1, "hidden_sizes": (4,), "covariance": "full", "initial_std": 0.5,
        "std_range": (0.1, 1.0), "bounded": True,
    },
    DeterministicActor: {"obs_dim": 2, "act_dim": 1, "hidden_sizes": (4,)},
    OnpolicyActor: {
        "obs_dim": 2, "act_dim": 1, "hidden_sizes": (4,), "initial_std": 0.5, "std_range": (0.1, 1.0),
        "bounded": True,
    },
    EnsembleCritic: {
        "obs_dim": 2, "act_dim": 1, "num_costs": 1, "hidden_sizes": (4,), "reward_ensemble": 1,
        "cost_ensemble": 1, "shared_body": False,
    },
    CategoricalActor: {"obs_dim": 2, "num_actions": 3, "hidden_sizes": (4,), "activation": "relu"},
    DiscreteCritic: {
        "obs_dim": 2, "num_actions": 3, "num_costs": 1, "hidden_sizes": (4,), "reward_ensemble": 1,
        "cost_ensemble": 1, "shared_body": False,
    },
    ValueCritic: {"obs_dim": 2, "num_costs": 1, "hidden_sizes": (4,), "shared_body": False},
    ObservationNormaliser: {"obs_dim": 2, "clip": 5.0, "horizon": 10.0},
    reduce_reward: {"q_reward": ONES},
    reduce_cost: {"q_cost": torch.ones(1, 2, 3), "reduction": "ucb", "ucb_scale": 1.0},
    CostReplayBuffer: {"size": 4, "num_costs": 1, "stack_num": 1, "ignore_obs_next": False, "random_seed": 1},
    CostVectorReplayBuffer: {
        "total_size": 4, "buffer_num": 2, "num_costs": 1, "stack_num": 1, "ignore_obs_next": False,
        "random_seed": 1,
    },
    EpisodeLog: {"num_costs": 1},
    trainer.seed_range: {"count": 3, "run_seed": 1},
    trainer.meta_iteration_seeds: {"run_seed": 1, "iteration": 0, "count": 3},
    trainer.adaptation_seeds: {"seed": 1, "count": 3},
    trainer.collecting_process_seed: {"run_seed": 1},
    env.make: {"id": "ToyLine-v0", "render_mode": None, "max_episode_steps": 5, "task_seed": None},
    env.env_fn: {"id": "ToyLine-v0", "render_mode": None},
    env.CostReader: {"env_id": "Mine-v0", "num_costs": 1},
    env.KnownOptimumEnv: {
        "window": (0, 2), "clock": False, "noise": False, "reward_scale": 1.0, "cost_scale": 1.0,
        "obs_scale": 1.0, "env_id": "Mine-v0", "max_episode_steps": 5,
    },
    env.time_limit: {"env": gym.make("CartPole-v1")},
    env.can_terminate: {"env": "ToyLine-v0"},
    experiment.load_policy: {"path": "nowhere", "device": "cpu"},
    experiment.register_algorithm: {"name": "own", "algorithm": algorithms()["cvpo"]},
    experiment.resume: {"folder": "nowhere", "show_progress": False},
    experiment.evaluate: {
        "run": "nowhere", "episodes": 1, "seed": 0, "stochastic": False, "checkpoint": "best",
        "cost_limit": 1.0, "device": "cpu",
    },
    experiment.evaluate_suite: {
        "run": "nowhere", "adapt_steps": 0, "episodes": 1, "seed": 0, "family": "MetaAim",
        "cost_margin": 0.1, "kl_bound": 0.1, "step_per_collect": 10, "device": "cpu",
    },
    experiment.adapt: {
        "run": "nowhere", "steps": 1, "episodes": 1, "seed": 0, "task": "MetaAim1-v0", "checkpoint": "best",
        "cost_margin": 0.1, "kl_bound": 0.1, "step_per_collect": 10, "test_at": (0,), "collect_last": True,
        "device": "cpu",
    },
    experiment.record_video: {"run": "nowhere", "path": "a.gif", "episodes": 1, "seed": 0, "device": "cpu"},
    experiment.show: {"run": "nowhere", "episodes": 1, "seed": 0, "device": "cpu"},
    experiment.make_config: {"policy": "cvpo", "task": "ToyLine-v0", "preset": "tuned"},
    experiment.run: {
        "config": experiment.make_config("cvpo", "ToyLine-v0"), "out": "nowhere", "run_name": "x",
        "show_progress": False, "init_from": "nowhere",
    },
}  # fmt: skip

# Values out of range, which no annotation tells.
OUT_OF_RANGE = [
    (returns.cost_threshold, "cost_limit", (-1.0, "ten", True, [1.0, True])),
    (returns.cost_threshold, "max_episode_steps", (0, -1, 2**63)),
    (returns.cost_threshold, "gamma", (-0.1, 1.1, math.inf)),
    (returns.decayed_cost_limit, "start", (-1.0,)),
    (returns.decayed_cost_limit, "step", (-1, math.inf)),
    (returns.decayed_cost_limit, "decay_steps", (0, math.inf)),
    (returns.integral_margin, "rate", (-0.1, 1.0)),
    (returns.nstep_targets, "gamma", (-0.1, 1.1)),
    (returns.generalised_advantages, "gamma", (-0.1, 1.1, [0.5, 2.0])),
    (multiplier.initial_multipliers, "num_costs", (0, -1)),
    (multiplier.initial_multipliers, "value", (-1.0, math.inf)),
    (multiplier.dual_ascent, "lr", (-0.1, math.inf)),
    (multiplier.pid_control, "gains", ((1.0, -0.1, 0.0), (1.0, 2.0), (math.inf, 0.0, 0.0))),
    (multiplier.pid_control, "smoothing", (1.0, -0.1)),
    (multiplier.pid_control, "surplus_max", (0.0,)),
    (multiplier.augmented_multipliers, "penalty", (-1.0, math.inf)),
    (gaussian.sample_actions, "num_samples", (0, -1)),
    (estep.solve_dual, "kl_bound", (0.0, -1.0, math.inf)),
    (estep.solve_dual, "multiplier_max", (0.0, math.inf)),
    (estep.solve_dual_slsqp, "start", ([1.0], [1.0, 1.0, 1.0])),
    (constrained_step.constrained_step, "kl_bound", (0.0, math.inf)),
    (constrained_step.constrained_step, "corner_tolerance", (-0.1, 1.0)),
    (conjugate_gradient.conjugate_gradient, "max_iterations", (0,)),
    (conjugate_gradient.conjugate_gradient, "tolerance", (-1.0, math.inf)),
    (conjugate_gradient.InverseMetric, "max_iterations", (0,)),
    (trust_region.line_search, "shrink", (0.0, 1.0)),
    (trust_region.line_search, "max_backtracks", (-1,)),
    (GaussianActor, "obs_dim", (0, -1, 10**30)),
    (GaussianActor, "hidden_sizes", ((0,), (4, -1), (10**30,))),
    (GaussianActor, "initial_std", (0.0, 2.0, math.inf)),
    (EnsembleCritic, "num_costs", (0,)),
    (EnsembleCritic, "hidden_sizes", ((0,), (10**30,))),
    (OnpolicyActor, "act_dim", (0,)),
    (CategoricalActor, "num_actions", (0,)),
    (DiscreteCritic, "num_actions", (0,)),
    (DiscreteCritic, "hidden_sizes", ((0,),)),
    (ValueCritic, "hidden_sizes", ((0,),)),
    (ObservationNormaliser, "clip", (0.0, -1.0)),
    (CostReplayBuffer, "size", (0, -1, 10**30)),
    (CostReplayBuffer, "random_seed", (-1, 2**32)),
    (CostVectorReplayBuffer, "total_size", (0, 1)),
    (CostVectorReplayBuffer, "buffer_num", (0,)),
    (env.make, "max_episode_steps", (0, -1)),
    (env.KnownOptimumEnv, "window", ((3, 2), (0, 9))),
    (experiment.evaluate, "episodes", (0, -1, 10**30)),
    (experiment.evaluate, "seed", (-1, 2**32)),
    (experiment.evaluate, "checkpoint", ("first",)),
    (experiment.evaluate, "cost_limit", (-1.0, "ten", math.nan)),
    (experiment.adapt, "steps", (-1,)),
    (experiment.adapt, "seed", (-1, 2**32)),
    (experiment.adapt, "step_per_collect", (0,)),
]

# Tensors of shapes and number types that do not go with the others.
MISSHAPEN = [
    (function, name)
    for function, arguments in CALLS.items()
    for name, value in arguments.items()
    if isinstance(value, torch.Tensor)
    and function.__module__.startswith("fsrl_ext.functional")
    # One tensor alone has no other to go with, and a scale may have two shapes.
    and name not in ("std", "weights", "parameters", "theta", "y", "value", "scale", "scale_old", "kl")
    and name != "advantages"
    and len([x for x in arguments.values() if isinstance(x, torch.Tensor)]) > 1
]


def bad_values(kind):
    """Return values that an annotation does not allow, each with a text that the message has."""
    members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    members = [typing.get_origin(x) or x for x in members]
    bad = [] if type(None) in members else [None]
    if isinstance(kind, type) and issubclass(kind, torch.Tensor | torch.nn.Module):
        return [*bad, 3, "text", [1.0, 2.0]]
    if bool in members:
        return [*bad, "false", 1, 0.0]
    if Literal in members:
        return [*bad, "nothing", 3]
    if any(x in (int, float) for x in members):
        bad += [True, "1", {"a": 1}, ["a"]]
        return bad if float in members else [*bad, 1.5, math.nan]
    if any(x in (tuple, collections.abc.Sequence) for x in members):
        return [*bad, "12", {1: 2}, 3, ["a", "b"]]
    if str in members:
        return [*bad, 3, ["a"]]
    if (
        any(isinstance(x, type) and x is not type(None) for x in members)
        or collections.abc.Callable in members
    ):
        return [*bad, 3, "text"] if str not in members else [*bad, 3]
    return []


def kinds_of(function):
    plain = inspect.unwrap(function.__init__ if isinstance(function, type) else function)
    kinds = {}
    for name, text in plain.__annotations__.items():
        try:
            kinds[name] = eval(text, plain.__globals__) if isinstance(text, str) else text
        except NameError:  # what only type checkers import
            continue
    return kinds


def refused(function, arguments, name, value):
    """Check that a call with one bad argument is refused by name and value."""
    with pytest.raises((ValueError, TypeError)) as error:
        function(**{**arguments, name: value})
    message = str(error.value)
    assert name in message, message
    assert len(message.splitlines()) == 1
    if isinstance(value, bool | int | float | str | None):
        assert str(value) in message or f"got {type(value).__name__}" in message, message


TYPE_CASES = [
    pytest.param(function, name, value, id=f"{function.__name__}-{name}-{value}")
    for function, arguments in CALLS.items()
    for kinds in [kinds_of(function)]
    for name in arguments
    if name in kinds
    for value in bad_values(kinds[name])
]
RANGE_CASES = [
    pytest.param(function, name, value, id=f"{function.__name__}-{name}-{value}")
    for function, name, values in OUT_OF_RANGE
    for value in values
]


@pytest.mark.parametrize(("function", "name", "value"), TYPE_CASES)
def test_an_argument_of_another_type_is_refused(function, name, value):
    refused(function, CALLS[function], name, value)


@pytest.mark.parametrize(("function", "name", "value"), RANGE_CASES)
def test_an_argument_out_of_range_is_refused(function, name, value):
    refused(function, CALLS[function], name, value)


@pytest.mark.parametrize(("function", "name"), MISSHAPEN)
def test_a_tensor_of_another_shape_is_refused(function, name):
    """The message is about one of the tensors that do not go together."""
    arguments = CALLS[function]
    tensor = arguments[name]
    for wrong in (tensor[..., None], torch.cat([tensor, tensor]) if tensor.dim() else tensor.expand(2)):
        with pytest.raises(ValueError, match="must") as error:
            function(**{**arguments, name: wrong})
        assert any(x in str(error.value) for x in arguments), str(error.value)


CONFIGS = sorted(
    {x for row in algorithms().values() for x in (row.config, row.training)}, key=lambda cls: cls.__name__
)
FIELD_CASES = [
    pytest.param(cls, field.name, value, id=f"{cls.__name__}-{field.name}-{value}")
    for cls in CONFIGS
    for kinds in [typing.get_type_hints(cls)]
    for field in dataclasses.fields(cls)
    if field.name in cls.__annotations__  # a field that is inherited is checked with the base
    for value in (*bad_values(kinds[field.name]), math.nan)
    # A single number stands for several, as on the command line.
    if not (value == 3 and "tuple" in str(kinds[field.name]))
]


@pytest.mark.parametrize(("cls", "name", "value"), FIELD_CASES)
def test_a_setting_of_another_type_is_refused(cls, name, value):
    refused(cls, {}, name, value)


def test_an_argument_of_any_type_is_taken():
    @checked(at_least_one=("count",))
    def twice(value: Any, count: int, several: Sequence[Any] = (), either: Any | None = None) -> Any:
        return value, count, several, either

    assert twice("x", 1, [object, 2], either=object) == ("x", 1, [object, 2], object)
    with pytest.raises(ValueError, match="count must be a whole number >= 1, got 0"):
        twice(None, 0)


def test_a_field_of_a_users_own_config_is_checked_without_a_line_of_code():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class OwnConfig(fsrl_ext.policy.CPOConfig):
        rounds: int = 3
        weights: tuple[float, ...] = (1.0,)

    assert OwnConfig(rounds=np.int64(4), weights=[1, 2.5]) == OwnConfig(rounds=4, weights=(1, 2.5))
    assert type(OwnConfig(rounds=np.int64(4)).rounds) is int
    for name, value in (("rounds", 1.5), ("rounds", True), ("weights", "12"), ("weights", [math.nan])):
        refused(OwnConfig, {}, name, value)


POLICY_CASES = [
    pytest.param(name, argument, value, id=f"{name}-{argument}-{value}")
    for name in EVERY
    for argument, values in {
        "actor": (None, 3), "actor_optim": (None, "adam"), "critic": (None, 3), "critic_optim": (None, 3),
        "action_space": (None, 3), "cost_limit": ("ten", True, -1.0, None),
        "max_episode_steps": (math.nan, 0, -1, 1.5, True, None), "config": (3, "fast"),
        "lr_scheduler": (3,),
    }.items()
    for value in values
    if not (argument == "actor_optim" and name in ("cpo", "trpo", "meta_cpo"))
]  # fmt: skip


@pytest.fixture(scope="module")
def policies():
    return {name: make(name) for name in EVERY}


@pytest.mark.parametrize(("name", "argument", "value"), POLICY_CASES)
def test_an_argument_of_a_policy_is_refused(policies, name, argument, value):
    policy = policies[name]
    taken = inspect.signature(type(policy)).parameters
    arguments = {x: getattr(policy, x) for x in KEPT if x in taken}
    arguments |= {"obs_dim": 2} if "obs_dim" in taken else {}
    refused(type(policy), arguments, argument, value)


class Stock(BasePolicy):
    """A policy without a cost limit."""

    def forward(self, batch, state=None, **kwargs):
        raise NotImplementedError

    def learn(self, batch, *args, **kwargs):
        raise NotImplementedError


def collector_arguments():
    return {
        "policy": RandomPolicy(), "env": DummyVectorEnv([lambda: env.make("ToyLine-v0")]),
        "buffer": None, "num_costs": 1, "discount": 0.9, "pass_info": False, "fast": True,
        "replayable": False, "exploration_noise": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("policy", None), ("policy", 3), ("env", None), ("env", "ToyLine-v0"), ("buffer", 3),
        ("num_costs", 0), ("num_costs", 1.5), ("num_costs", True), ("discount", 1.5), ("discount", "1"),
        ("discount", math.nan), ("pass_info", 1), ("fast", "no"), ("replayable", None),
        ("exploration_noise", 0.1), ("collect_stats_class", 3), ("collect_stats_class", dict),
    ],
)  # fmt: skip
def test_an_argument_of_a_collector_is_refused(name, value):
    refused(CostCollector, collector_arguments(), name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("policy", 3), ("make_envs", 3), ("buffer", None), ("seed", 1.5), ("seed", -1), ("seed", 2**32),
        ("discount", 2.0), ("replayable", "no"), ("exploration_noise", 1),
    ],
)  # fmt: skip
def test_an_argument_of_a_collector_ahead_is_refused(name, value):
    arguments = {
        "policy": RandomPolicy(), "make_envs": dict, "buffer": CostVectorReplayBuffer(4, 2), "seed": 0,
    }  # fmt: skip
    refused(AheadCollector, arguments, name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("policy", 3), ("make_env", 3), ("buffer", None), ("actors", 0), ("actors", 3), ("ahead", 1),
        ("seed", -1), ("discount", 2.0), ("replayable", "no"), ("exploration_noise", 1),
    ],
)  # fmt: skip
def test_an_argument_of_a_collector_on_ray_is_refused(name, value):
    arguments = {
        "policy": RandomPolicy(), "make_env": dict, "buffer": CostVectorReplayBuffer(4, 2), "seed": 0,
        "actors": 2, "ahead": True,
    }  # fmt: skip
    refused(RayCollector, arguments, name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("policy", 3), ("make_envs", None), ("step_per_collect", 0), ("step_per_collect", 1.5),
        ("num_envs", 0), ("num_envs", True), ("num_costs", 0), ("discount", -0.1),
    ],
)  # fmt: skip
def test_an_argument_of_a_meta_collector_is_refused(name, value):
    arguments = {"policy": RandomPolicy(), "make_envs": dict, "step_per_collect": 4, "num_envs": 2}
    refused(MetaCollector, arguments, name, value)


@pytest.fixture(scope="module")
def parts(policies):
    """Return the policy and the collector of trainers."""
    policy = policies["cvpo"]
    envs = DummyVectorEnv([lambda: env.make("ToyLine-v0")])
    return policy, CostCollector(policy, envs, CostVectorReplayBuffer(100, 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("policy", 3), ("policy", None), ("train_collector", 3), ("train_collector", None),
        ("test_collector", 3), ("max_epoch", 0), ("max_epoch", 1.5), ("step_per_epoch", "10"),
        ("step_per_epoch", 0), ("step_per_collect", True), ("step_per_collect", 0), ("batch_size", 0),
        ("batch_size", 1.5), ("update_per_step", 0), ("update_per_step", math.nan), ("update_per_step", "1"),
        ("warmup_steps", -1), ("warmup_steps", 1.5), ("selection_seeds", "12"), ("selection_seeds", [1.5]),
        ("train_seeds", 3), ("train_seeds", [-1]), ("on_collect_end", 3), ("on_selection", "f"),
        ("save_best_fn", 3), ("cost_limit_schedule", 3), ("logger", 3), ("show_progress", "no"),
    ],
)  # fmt: skip
def test_an_argument_of_a_trainer_is_refused(parts, name, value):
    arguments = {
        "policy": parts[0], "train_collector": parts[1], "test_collector": None, "max_epoch": 1,
        "step_per_epoch": 10, "step_per_collect": 10, "batch_size": 4, "update_per_step": 1.0,
    }  # fmt: skip
    refused(trainer.CostOffpolicyTrainer, arguments, name, value)


def test_a_policy_without_a_cost_limit_is_named(parts):
    stock = Stock(action_space=parts[0].action_space)
    arguments = {
        "policy": stock, "train_collector": parts[1], "test_collector": None, "max_epoch": 1,
        "step_per_epoch": 10, "step_per_collect": 10, "batch_size": 4,
    }  # fmt: skip
    with pytest.raises(TypeError, match=r"policy must be one with a cost limit, .*, got Stock"):
        trainer.CostOffpolicyTrainer(**arguments, update_per_step=1.0)
    with pytest.raises(TypeError, match=r"policy must be one with a cost limit, .*, got Stock"):
        trainer.CostOnpolicyTrainer(**arguments, repeat_per_collect=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 3), ("num_costs", 0), ("num_costs", 1.5), ("can_terminate", "no"), ("max_episode_steps", 0),
        ("max_episode_steps", math.nan), ("entry_point", 3),
    ],
)  # fmt: skip
def test_an_argument_of_a_registration_is_refused(name, value):
    refused(env.register_task, {"id": "Bad-v0", "entry_point": dict}, name, value)
    assert "Bad-v0" not in gym.registry
    if name != "id" and name != "entry_point":
        refused(env.register_family, {"name": "Bad", "build": build_aim, "levels": {}}, name, value)


def test_there_are_as_many_cases_as_promised():
    assert len(TYPE_CASES) + len(RANGE_CASES) + len(FIELD_CASES) + len(POLICY_CASES) >= 500
