"""Two runs of one seed are the same, with every kind of worker, and workers make no difference."""

import numpy as np
import pytest
from toys.runs import assert_same_run, resumable_config, run_killed
from toys.settings import small_config

from fsrl_ext.data.cost_env import CostVectorEnv
from fsrl_ext.env import env_fn
from fsrl_ext.experiment import evaluate, resume, run
from fsrl_ext.experiment.training.checkpoint import read_checkpoint
from fsrl_ext.experiment.training_config import train_envs
from fsrl_ext.report import read_progress

SHORT = {"steps": 240, "warmup_steps": 80, "step_per_collect": 40, "selections": 2, "num_envs": 2}


def play(out, name, task, cores=1, **settings):
    config = small_config(name, task, **{**SHORT, **settings})
    return run(config, out=out, run_name="run", show_progress=False, cores=cores).folder


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("ToyGlobalNoise-v0", {}),
        ("ToyLine-v0", {"workers": 1}),
        ("ToyLine-v0", {"workers": 2}),
        ("ToyGlobalNoise-v0", {"workers": 2}),
        ("ToyGlobalNoise-v0", {"collect_ahead": True}),
        ("ToyLine-v0", {"workers": 2, "collect_ahead": True}),
        ("ToyGlobalNoise-v0", {"workers": 2, "collect_ahead": True}),
    ],
    ids=str,
)
def test_the_same_seed_is_the_same_run(task, settings, tmp_path):
    # Collecting ahead, one of the two runs is made with processes and the other one in turn.
    cores = (1, 2) if "collect_ahead" in settings else (1, 1)
    runs = [play(tmp_path / str(i), "sac_lag", task, cores=cores[i], **settings) for i in range(2)]
    assert_same_run(*runs)


def test_a_seed_determines_the_global_generators_of_its_worker():
    envs = CostVectorEnv(train_envs(env_fn("ToyGlobalNoise-v0"), 2, 2), 1)
    rewards = []
    for seeds in ([5, 6], [5, 6], [6, 5]):
        envs.reset(seed=seeds)
        rewards.append([envs.step(np.zeros((2, 1)))[1].tolist() for _ in range(3)])
    envs.close()
    assert rewards[0] == rewards[1] != rewards[2]
    assert rewards[2] == [step[::-1] for step in rewards[0]]
    assert all(one != other for one, other in rewards[0])


def curves(folder):
    return {k: v for k, v in read_progress(folder).items() if "time" not in k and "speed" not in k}


def test_processes_and_an_own_share_make_no_difference():
    make_env, actions = env_fn("ToyLine-v0"), np.random.default_rng(0).uniform(-1, 1, (30, 5, 1))
    seen = []
    for processes, own_share in ((0, False), (1, True), (2, False), (2, True), (9, True)):
        envs = CostVectorEnv(train_envs(make_env, processes, 5, own_share=own_share), 1)
        start = envs.reset(seed=[1, 2, 3, 4, 5])[0]
        steps = [(*envs.step(action)[:4], envs.cost) for action in actions]
        part = envs.step(actions[0][[3, 1]], [3, 1])[0]
        envs.close()
        seen.append([start, part, *(np.stack(x) for x in zip(*steps, strict=True))])
    for others in seen[1:]:
        for one, other in zip(seen[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["td3_lag", "ppo_lag"])
def test_workers_make_no_difference(name, tmp_path):
    shared = {} if name == "td3_lag" else {"warmup_steps": None}
    shared = {k: v for k, v in {**SHORT, **shared}.items() if v is not None}
    expected = None
    for i, settings in enumerate(({"workers": 0}, {"workers": 2}, {"workers": 3}, {})):
        config = small_config(name, "ToyLine-v0", **{**shared, "num_envs": 4, **settings})
        folder = run(config, out=tmp_path / str(i), run_name="run", show_progress=False, cores=2).folder
        found = curves(folder)
        expected = expected or found
        assert found.keys() == expected.keys()
        for key, values in found.items():
            np.testing.assert_array_equal(values, expected[key], err_msg=key)


def test_evaluating_repeats_itself_where_global_generators_decide(tmp_path):
    folder = play(tmp_path, "sac_lag", "ToyGlobalNoise-v0")
    np.random.seed(1)  # noqa: NPY002 - what is tested
    first, drawn = evaluate(folder, episodes=4), np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert np.random.random() == drawn  # noqa: NPY002
    second = evaluate(folder, episodes=4)
    assert first.returns.tolist() == second.returns.tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_float64_space_is_kept_through_resuming_and_evaluating(workers, tmp_path):
    config = resumable_config("sac_lag", "ToyStrict-v0", warmup_steps=300, workers=workers)
    expected = run(config, out=tmp_path / "whole", run_name="run", show_progress=False)
    folder = run_killed(config, 250, tmp_path / "killed")
    resume(folder, show_progress=False)
    assert_same_run(folder, expected.folder)
    judged = evaluate(folder, checkpoint="last", episodes=config.final_episodes)
    assert judged.return_mean == expected.result["last"]["return_mean"]
    assert read_checkpoint(folder / "checkpoints" / "last.pt")["spec"]["action_dtype"] == "float64"
    with pytest.raises(ValueError, match=r"same bounds as in training: ToyStrictWider-v0 has Box"):
        evaluate(folder, task="ToyStrictWider-v0")
