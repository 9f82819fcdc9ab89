"""Command lines that cannot work: each is one line on stderr, exit code 2, and nothing left behind.

Every setting gets texts of no value, from its type; the tables below add what is about several settings,
about files and about the other commands. No case may begin to train or to play.
"""

import types
import typing
from typing import Literal

import pytest
from toys.settings import small_config

from fsrl_ext.cli import main
from fsrl_ext.experiment.settings import list_settings
from fsrl_ext.experiment.training import run as running
from fsrl_ext.experiment.training.build import build_policy
from fsrl_ext.experiment.training.checkpoint import save_checkpoint

THIRTY = "9" * 30
TASK = "ToyLine-v0"


def kind_of(setting):
    members = typing.get_args(setting.kind) if isinstance(setting.kind, types.UnionType) else (setting.kind,)
    return members[0]


def texts_of_no_value(setting):
    """Return texts that no setting of this type can have."""
    kind = kind_of(setting)
    if kind is int:
        return ("many", "1.5", "nan", THIRTY, "-1")
    if kind is float:
        return ("many", "nan", "1,2")
    if kind is bool:
        return ("maybe", "1")
    if typing.get_origin(kind) is Literal:
        return ("nothing",)
    if typing.get_origin(kind) is tuple:
        number = typing.get_args(kind)[0]
        return ("a,b", "1,,2", "-1", *((THIRTY, "1.5", "0") if number is int else ("nan",)))
    return ()


def setting_cases():
    """Yield policy, setting and text: every setting once, with the first policy that has it."""
    seen = {"policy", "task"}
    for policy in ("cvpo", "sac_lag", "td3_lag", "ppo_lag", "cpo", "focops", "meta_cpo", "maml_lag"):
        for name, setting in list_settings(policy).items():
            if name not in seen:
                seen.add(name)
                yield from ((policy, name, text) for text in texts_of_no_value(setting))


# What no type tells: ranges, settings that contradict each other, sizes that no machine has.
TRAIN = [
    *[("cvpo", f"--{name}", text) for name, text in (
        ("steps", "0"), ("selections", "0"), ("final-episodes", "0"), ("final-episodes", "2000000"),
        ("selection-episodes", "1000001"), ("seed", "4294967296"), ("seed", "-1"), ("threads", "0"),
        ("threads", "99999"), ("device", "meta"), ("device", "abacus"), ("device", "cuda:99"), ("device", ""),
        ("cost-limit", "-5"), ("cost-limit", ""), ("cost-limit", "5,20"), ("cost-limit", "()"),
        ("cost-limit-start", "inf"), ("cost-limit-start", "1,2"), ("cost-limit-decay-steps", "0"),
        ("gamma", "0"), ("gamma", "1"), ("gamma", "inf"), ("tau", "0"), ("tau", "1.5"), ("tau", "inf"),
        ("kl-bound", "0"), ("kl-bound", "inf"), ("kl-bound", "-1"), ("num-samples", "0"),
        ("multiplier-max", "0"), ("multiplier-max", "inf"), ("kl-bound-mean", "inf"), ("ucb-scale", "inf"),
        ("kl-multiplier-lr", "1,2,3"), ("kl-multiplier-lr", "inf"), ("cost-level-rate", "0"),
        ("average-tau", "2"), ("margin-rate", "1"), ("cost-margin", "1"), ("max-grad-norm", "inf"),
        ("estimation-step", "0"), ("mstep-iterations", "0"), ("old-policy-tau", "0"), ("limit-approach", "0"),
        ("cost-level-episodes", "inf"), ("actor-lr", "inf"), ("actor-lr", "0"), ("critic-lr", "-1"),
        ("initial-std", "0"), ("initial-std", "inf"), ("update-per-step", "inf"), ("update-per-step", "0"),
        ("warmup-steps", "150000"), ("buffer-size", "1"), ("buffer-size", "999999999999999"),
        ("batch-size", "999999999999999"), ("num-samples", "99999999999999"), ("num-envs", "1000000"),
        ("workers", "1000000"), ("hidden-sizes", "9999999999,9999999999"), ("hidden-sizes", "()"),
        ("critic-hidden-sizes", "99999999999,9999999"), ("worker-type", "thread"), ("init-from", "nowhere"),
        ("run-name", "a/b"), ("run-name", ""), ("run-name", ".."), ("preset", "papre"), ("preset", ""),
        ("multiplier-gains", "1,2,3"), ("clip", "0.2"), ("no-such", "1"),
    )],
    *[(policy, f"--{name}", text) for policy, name, text in (
        ("sac", "cost-limit", "5"), ("sac", "cost-limit-start", "5"), ("sac_lag", "alpha", "0"),
        ("sac_lag", "target-entropy", "inf"), ("sac_lag", "multiplier-gains", "1,2"),
        ("sac_lag", "multiplier-init", "200"), ("sac_lag", "multiplier-max", "0"),
        ("sac_lag", "multiplier-lr", "inf"), ("sac_lag", "multiplier-surplus-max", "0"),
        ("ddpg_lag", "exploration-std", "inf"), ("td3_lag", "target-clip", "inf"),
        ("td3_lag", "policy-delay", "0"), ("ppo_lag", "clip", "inf"), ("ppo_lag", "entropy-weight", "inf"),
        ("ppo_lag", "kl-stop", "-1"), ("ppo_lag", "step-per-collect", "99999999999999"),
        ("cpo", "backtrack-factor", "1"), ("cpo", "cg-damping", "inf"), ("cpo", "cg-iterations", "0"),
        ("cpo", "cost-gamma", "0"), ("cpo", "gae-lambda", "0"), ("focops", "temperature", "0"),
        ("cpo", "fisher-fraction", "0"), ("cpo", "repeat-per-collect", "0"),
    )],
]  # fmt: skip

WITHOUT_RUN = [
    [], ["trian"], ["train"], ["train", "cvpo"], ["train", "cvop", TASK], ["train", "", TASK],
    ["train", "cvpo", "NoSuch-v0"], ["train", "cvpo", ""], ["train", "cvpo", ".tasks:Cart-v0"],
    ["train", "cvpo", "..:Cart-v0"], ["train", "cvpo", "no such:Cart-v0"], ["train", "cvpo", ":"],
    ["train", "cvpo", "no_such_module:Cart-v0"], ["train", "cvpo", "os.no_such:Cart-v0"],
    ["train", "cvpo", TASK, "more"], ["train", "cvpo", "ToyGears-v0"], ["train", "cvpo", "ToyNoCost-v0"],
    ["train", "sac_lag", "ToyDiscrete-v0"],
    ["train", "cvpo", "ToyLineTwoCosts-v0"], ["train", "meta_cpo", TASK], ["train", "meta_cpo", "MetaAimm"],
    ["train", "cvpo", "MetaAim"], ["train", "cvpo", TASK, "--steps"],
    ["train", "cvpo", TASK, "--hidden-sizes"],
    ["train", "CVPO!", TASK, "--help"], ["train", "cvpo", "MetaAim\0"],
    ["resume"], ["resume", "nowhere"], ["resume", ""], ["resume", "nowhere", "more"],
    ["evaluate"], ["evaluate", "nowhere"], ["evaluate", "nowhere", "--checkpoint", "first"],
    ["evaluate", "nowhere", "--episodes", "x"], ["evaluate", "nowhere", "--suite", "beside"],
    ["evaluate", "nowhere", "--render", "rgb"], ["evaluate", "nowhere", "--adapt-steps", "1"],
    ["evaluate", "nowhere", "--kl-bound", "0.1"],
    ["evaluate", "nowhere", "--suite", "inside", "--video", "a.gif"],
    ["adapt"], ["adapt", "nowhere"], ["adapt", "nowhere", "--task", TASK], ["list", "things"],
    ["list", "tasks", "more"],
]  # fmt: skip

# Of a saved meta-learned policy and of a saved off-policy one.
EVALUATE = [
    ["--episodes", "0"], ["--episodes", "-1"], ["--episodes", "1.5"], ["--episodes", "2000000"],
    ["--episodes", THIRTY], ["--seed", "-1"], ["--seed", "4294967296"], ["--seed", "4294967295"],
    ["--seed", THIRTY], ["--device", "meta"], ["--device", "abacus"], ["--cost-limit", "5,20"],
    ["--cost-limit", "5", "20"], ["--cost-limit", "nan"], ["--cost-limit", "-1"], ["--cost-limit", "x"],
    ["--task", "NoSuch-v0"], ["--task", ".own:Cart-v0"], ["--task-seed", "1"],
    ["--task", "ToyDiscrete-v0"], ["--json", "no/such/folder.json"], ["--json", ""], ["--json", "there.json"],
    ["--video", "a.avi"], ["--video", "no/such/film.gif"], ["--video", "there.gif"],
    ["--video", "a.gif", "--video-episodes", "0"], ["--json", "a.gif", "--video", "a.gif"],
    ["--suite", "inside", "--task", TASK], ["--suite", "inside", "--stochastic"], ["--checkpoint", "next"],
    ["--task", "MetaAim1-v0", "--task-seed", "-1"], ["--task", "MetaAim1-v0", "--task-seed", "x"],
]  # fmt: skip
ADAPT = [
    ["--steps", "-1"], ["--steps", THIRTY], ["--episodes", "0"], ["--seed", "-1"], ["--seed", "4294967296"],
    ["--step-per-collect", "0"], ["--cost-limit", "1,2"], ["--cost-limit", "nan"], ["--kl-bound", "0"],
    ["--kl-bound", "inf"], ["--kl-bound", "nan"], ["--cost-margin", "1"], ["--cost-margin", "nan"],
    ["--out", "no/such/folder.pt"], ["--out", "there.json"], ["--json", "there.json"],
    ["--json", "no/such/folder.json"], ["--json", "a.pt", "--out", "a.pt"], ["--task-seed", "-1"],
    ["--device", "meta"],
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folder of a policy that was saved untrained, without a run."""
    folder = tmp_path_factory.mktemp("saved")
    for name in ("cvpo", "meta_cpo"):
        config = small_config(name)
        policy, spec = build_policy(config)
        counters = {"env_step": 0, "gradient_step": 0, "episode": 0}
        save_checkpoint(folder / f"{name}.pt", policy, config=config, spec=spec, counters=counters)
    return folder


@pytest.fixture
def refuse(tmp_path, monkeypatch, capsys):
    """Return a function that checks how a command line ends, in an empty folder, and returns its line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("mine")
    (tmp_path / "there.gif").write_text("mine")
    monkeypatch.setattr(running, "Session", _may_not_begin)

    def check(arguments):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert len(err.splitlines()) == 1, err
        assert err.startswith("fsrl-ext"), err
        assert "Traceback" not in err
        assert sorted(x.name for x in tmp_path.iterdir()) == ["there.gif", "there.json"]
        assert (tmp_path / "there.json").read_text() == "mine"
        return err

    return check


def _may_not_begin(*args, **kwargs):
    raise AssertionError("the run began")


@pytest.mark.parametrize(("policy", "name", "text"), list(setting_cases()))
def test_a_text_of_no_value_is_refused(refuse, policy, name, text):
    task = "MetaAim" if policy in ("meta_cpo", "maml_lag") else TASK
    err = refuse(["train", policy, task, f"--{name.replace('_', '-')}={text}"])
    assert name in err
    assert text.split(",")[0] in err


@pytest.mark.parametrize(("policy", "option", "text"), TRAIN)
def test_a_setting_out_of_its_range_is_refused(refuse, policy, option, text):
    err = refuse(["train", policy, TASK, f"{option}={text}"])
    name = option.removeprefix("--")
    assert name in err or name.replace("-", "_") in err


@pytest.mark.parametrize("arguments", WITHOUT_RUN, ids=" ".join)
def test_a_command_without_what_it_needs_is_refused(refuse, arguments):
    refuse(arguments)


@pytest.mark.parametrize("arguments", EVALUATE, ids=" ".join)
def test_an_evaluation_that_cannot_be_is_refused(refuse, saved, arguments):
    refuse(["evaluate", str(saved / "cvpo.pt"), *arguments])


@pytest.mark.parametrize("arguments", ADAPT, ids=" ".join)
def test_an_adaptation_that_cannot_be_is_refused(refuse, saved, arguments):
    refuse(["adapt", str(saved / "meta_cpo.pt"), "--task", "MetaAim1-v0", *arguments])


def test_there_are_as_many_cases_as_promised():
    assert len(list(setting_cases())) + len(TRAIN) + len(WITHOUT_RUN) + len(EVALUATE) + len(ADAPT) >= 300
