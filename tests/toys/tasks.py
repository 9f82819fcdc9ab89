"""Register toy environments under ids of their own, and a family of bandits for meta-learning."""

from __future__ import annotations

from typing import Any

from fsrl_ext.env import register_family, register_task
from fsrl_ext.env.meta import Fixed, Uniform
from toys.cmdps import CueEnv
from toys.envs import (
    AimEnv,
    DiscreteEnv,
    EarlyEndEnv,
    FailingEnv,
    ForgetfulEnv,
    GearsEnv,
    GlobalNoiseEnv,
    LineEnv,
    NamedCostsEnv,
    NaNCostEnv,
    NoCostEnv,
    PictureEnv,
    SeedLengthEnv,
    StrictEnv,
)

# Steps of an episode of the toy tasks, and of the family.
HORIZON = 20
FAMILY_HORIZON = 10

# Id, class, its arguments, and whether an episode can terminate (None where nobody has said).
TASKS = (
    ("ToyLine-v0", LineEnv, {}, False),
    ("ToyLineTwoCosts-v0", LineEnv, {"num_costs": 2}, False),
    ("ToyNamed-v0", NamedCostsEnv, {}, False),
    ("ToyLineNaN-v0", LineEnv, {"nan_at": 100}, False),
    ("ToyLineNaNCost-v0", NaNCostEnv, {"nan_at": 100}, False),
    ("ToyFailing-v0", FailingEnv, {"fail_at": 100}, False),
    ("ToyExiting-v0", FailingEnv, {"fail_at": 100, "exit_code": 3}, False),
    ("ToyEarlyEnd-v0", EarlyEndEnv, {}, True),
    ("ToySeedLength-v0", SeedLengthEnv, {}, None),
    ("ToyForgetful-v0", ForgetfulEnv, {}, False),
    ("ToyNoCost-v0", NoCostEnv, {}, False),
    ("ToyGlobalNoise-v0", GlobalNoiseEnv, {}, False),
    ("ToyStrict-v0", StrictEnv, {}, False),
    ("ToyStrictWider-v0", StrictEnv, {"high": (0.3, 0.7)}, False),
    ("ToyCue-v0", CueEnv, {}, False),
    ("ToyDiscrete-v0", DiscreteEnv, {"first": 3}, False),
    ("ToyGears-v0", GearsEnv, {}, False),
    ("ToyPicture-v0", PictureEnv, {}, False),
    ("ToyPictureFirst-v0", PictureEnv, {"channels_first": True}, False),
    ("ToySmallPicture-v0", PictureEnv, {"side": 32}, False),
)

LEVELS = {
    0: {"target": Fixed(0.5)},
    1: {"target": Uniform(0.2, 0.8)},
    2: {"target": Uniform(0.8, 1.0)},
}


def build_aim(parameters: Any, **kwargs: Any) -> AimEnv:
    return AimEnv(parameters["target"], **kwargs)


def build_aim_two_costs(parameters: Any, **kwargs: Any) -> AimEnv:
    return AimEnv(parameters["target"], 2, **kwargs)


# Name, builder, number of costs and levels of each family of bandits.
FAMILIES = (
    ("MetaAim", build_aim, 1, LEVELS),
    ("MetaAimTwo", build_aim_two_costs, 2, LEVELS),
    ("MetaAimOnly", build_aim, 1, {1: LEVELS[1]}),
)


def register_toys() -> None:
    """Register all tasks and families of this module."""
    for name, kind, arguments, terminates in TASKS:
        register_task(
            name, entry_point=kind, kwargs=arguments, can_terminate=terminates, max_episode_steps=HORIZON
        )
    for name, build, num_costs, levels in FAMILIES:
        register_family(
            name,
            build,
            levels,
            num_costs=num_costs,
            can_terminate=False,
            max_episode_steps=FAMILY_HORIZON,
        )
