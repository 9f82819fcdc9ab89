"""From options and study files to plans of runs: axes, names, dry runs, and what is refused."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
from toys.studies import assert_refused, write_run

from fsrl_ext import cli
from fsrl_ext.cli import main, sweep
from fsrl_ext.experiment.registry import RESERVED, algorithms
from fsrl_ext.experiment.settings import list_settings, make_config
from fsrl_ext.experiment.sweeps.description import KEYS, read_study_file
from fsrl_ext.experiment.sweeps.dry_run import plan_text, seeds_text, telling_fields
from fsrl_ext.experiment.sweeps.estimate import RATES, about, assumed_speed, estimate
from fsrl_ext.experiment.sweeps.names import MAX_BYTES
from fsrl_ext.experiment.sweeps.plan import Resources
from fsrl_ext.experiment.sweeps.status import RunState
from fsrl_ext.experiment.sweeps.study import plan_study
from fsrl_ext.experiment.sweeps.values import parse_seeds

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sweeps.md").read_text()
TASK, OTHER_TASK = "ToyLine-v0", "ToyEarlyEnd-v0"


def by_options(*arguments):
    """Return the plan of a command line."""
    arguments = ["sweep", *arguments]
    options = cli._parser(arguments).parse_args(arguments)
    return sweep._described(options).plan("fsrl-ext sweep")


def by_file(tmp_path, text, *arguments):
    """Return the plan of a study file with this text, and of options beside it."""
    file = tmp_path / "a_study.toml"
    file.write_text(text)
    return by_options(str(file), *arguments)


def varied(plan, *names):
    """Return the values of some settings for each run."""
    rows = []
    for run in plan.runs:
        parts = (run.config, run.config.policy_config, run.config.training)
        rows.append(tuple(next(getattr(x, name) for x in parts if hasattr(x, name)) for name in names))
    return rows


def test_options_make_the_product_of_everything_that_they_list():
    plan = by_options(
        *("--policies", "cvpo,sac_lag", "--tasks", f"{TASK},{OTHER_TASK}", "--seeds", "0-2"),
        *("--cost-limits", "5,10", "--grid", "gamma=0.97,0.99", "--steps", "30000", "--threads", "1"),
        *("--cores", "2", "--cpus-per-run", "0.5", "--out", "here/study"),
    )
    assert plan.folder == Path("here/study")
    assert plan.resources == Resources(cores=2, cpus_per_run=0.5)
    expected = {
        (policy, task, (limit,), gamma, seed)
        for policy in ("cvpo", "sac_lag")
        for task in (TASK, OTHER_TASK)
        for limit in (5.0, 10.0)
        for gamma in (0.97, 0.99)
        for seed in range(3)
    }
    rows = varied(plan, "policy", "task", "cost_limit", "gamma", "seed")
    assert len(rows) == len(expected) == 48
    assert set(rows) == expected
    assert {run.config.steps for run in plan.runs} == {30_000}
    config = make_config("cvpo", TASK, cost_limit=5.0, gamma=0.97, steps=30_000)
    assert plan.runs[0].config == config


FILE = f"""
policies = ["cvpo", "careful", "sac"]
tasks = ["{TASK}", "{OTHER_TASK}"]
seeds = [3, "5-6"]
cost_limits = [5, 10.0]
threads = 2
cores = 4
cpus_per_run = 2

[settings]
hidden_sizes = ["128/128", [64, 64], 32]
selections = 5

[policy.cvpo]
preset = ["tuned", "paper"]
kl_bound = 0.05

[policy.careful]
policy = "cvpo"
kl_bound = 0.2
task.{TASK}.steps = 7_000

[task.{TASK}]
steps = 8_000
"""


def test_a_file_has_lists_per_policy_and_per_task(tmp_path):
    plan = by_file(tmp_path, FILE)
    assert plan.folder == Path("a_study")
    assert plan.resources == Resources(cores=4, cpus_per_run=2)
    assert {run.config.threads for run in plan.runs} == {2}
    assert {run.config.seed for run in plan.runs} == {3, 5, 6}
    assert {run.config.training.hidden_sizes for run in plan.runs} == {(128, 128), (64, 64), (32,)}
    per_policy = {label: [run for run in plan.runs if run.label == label] for label in ("cvpo", "careful")}
    assert [len(runs) for runs in per_policy.values()] == [2 * 3 * 2 * 3 * 2, 2 * 3 * 2 * 3]
    assert {run.config.policy_config.kl_bound for run in per_policy["cvpo"]} == {0.05}
    assert {run.config.policy_config.kl_bound for run in per_policy["careful"]} == {0.2}
    assert {(run.config.task, run.config.steps) for run in per_policy["careful"]} == {
        (TASK, 7_000),
        (OTHER_TASK, 150_000),
    }
    paper = make_config("cvpo", TASK, preset="paper", kl_bound=0.05, steps=8_000, cost_limit=5.0)
    assert any(
        run.config.policy_config == paper.policy_config and dict(run.own_settings)["preset"] == "paper"
        for run in per_policy["cvpo"]
    )


def test_a_policy_without_limit_runs_once_for_all_limits(tmp_path):
    runs = [run for run in by_file(tmp_path, FILE).runs if run.label == "sac"]
    assert len(runs) == 2 * 3 * 3
    assert {run.config.cost_limit for run in runs} == {(float("inf"),)}
    plan = plan_study(
        policies="cpo,trpo", tasks="ToyLineTwoCosts-v0", settings={"cost_limit": ["1/2", "3/4"]}
    )
    assert [run.config.cost_limit for run in plan.runs if run.label == "trpo"] == [(float("inf"),) * 2]
    with pytest.raises(ValueError, match="cost_limit must be inf"):
        plan_study(policies="sac", tasks=TASK, settings={"cost_limit": 5})


def test_options_win_over_the_file(tmp_path):
    plan = by_file(
        tmp_path, FILE, "--policies", "cvpo", "--tasks", TASK, "--seed", "1", "--kl-bound", "0.3,0.4"
    )
    assert set(varied(plan, "policy", "task", "seed", "kl_bound", "steps")) == {
        ("cvpo", TASK, 1, bound, 8_000) for bound in (0.3, 0.4)
    }
    plan = by_file(tmp_path, FILE, "--steps", "9000", "--for", "careful", OTHER_TASK, "steps=6000")
    assert {(run.label == "careful", run.config.task, run.config.steps) for run in plan.runs} == {
        (False, TASK, 9_000), (False, OTHER_TASK, 9_000), (True, TASK, 9_000), (True, OTHER_TASK, 6_000),
    }  # fmt: skip
    plan = by_file(tmp_path, FILE, "--for", "careful", "selections=6", "--for", TASK, "gamma=0.9")
    assert {run.config.selections for run in plan.runs if run.label == "careful"} == {6}
    assert {(run.config.task, run.config.policy_config.gamma) for run in plan.runs if run.label == "sac"} == {
        (TASK, 0.9), (OTHER_TASK, 0.97),
    }  # fmt: skip


def test_python_has_tuples_for_values_and_lists_for_axes():
    plan = plan_study(
        policies=["cpo"],
        tasks=["ToyLineTwoCosts-v0"],
        seeds=[4],
        settings={"cost_limit": [(1, 2), "3/4"], "hidden_sizes": (16, 16), "gamma": [0.9, 1 - 2**-6]},
    )
    assert set(varied(plan, "cost_limit", "hidden_sizes", "gamma")) == {
        (limit, (16, 16), gamma) for limit in ((1.0, 2.0), (3.0, 4.0)) for gamma in (0.9, 1 - 2**-6)
    }
    assert plan.command.startswith("plan_study(policies=['cpo'], tasks=")
    assert plan.folder == Path("study")


def test_meta_learners_have_families_for_tasks():
    plan = plan_study(policies="meta_cpo", tasks="MetaAim", seeds="0-1", settings={"cost_limit": [4, 5]})
    assert [run.name for run in plan.runs[:2]] == [f"MetaAim-meta_cpo-cost_limit=4-seed{k}" for k in (0, 1)]


def test_every_setting_of_train_is_an_option():
    arguments = ["sweep", "--policies", "cvpo"]
    options = sweep_parser(arguments)._option_string_actions
    names = {name for policy in algorithms() for name in list_settings(policy)} - {"policy", "task"}
    assert len(names) > 60
    assert {f"--{name.replace('_', '-')}" for name in names} <= set(options)
    own = {action.dest for action in options.values()} - names - {"only_for", "seeds"}
    assert own <= RESERVED
    assert set(KEYS) <= RESERVED


def sweep_parser(arguments):
    return cli._parser(arguments)._subparsers._group_actions[0].choices["sweep"]


def test_the_help_imports_nothing_heavy():
    code = (
        "import contextlib, sys\nfrom fsrl_ext.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['sweep', '--help'])\n"
        "sys.exit(', '.join({'torch', 'ray', 'numpy'} & set(sys.modules)) or None)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "--cost-limits" in out.stdout


# Names.


def names_of(**changes):
    arguments = {"policies": "cvpo,cpo", "tasks": TASK, "seeds": "0-1", "settings": {"cost_limit": [5, 10]}}
    return [run.name for run in plan_study(**{**arguments, **changes}).runs]


def test_names_tell_what_a_run_is():
    assert names_of()[:2] == [f"ToyLine-v0-cvpo-cost_limit=5-seed{k}" for k in (0, 1)]
    settings = {"cost_limit": 5, "hidden_sizes": "16/16", "gamma": [0.9, 0.97], "actor_lr": 1e-4}
    assert names_of(policies="cvpo", seeds=7, settings=settings) == [
        "ToyLine-v0-cvpo-cost_limit=5-gamma=0.9-hidden_sizes=16+16-actor_lr=0.0001-seed7",
        "ToyLine-v0-cvpo-cost_limit=5-hidden_sizes=16+16-actor_lr=0.0001-seed7",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": "0-3"},
        {"policies": "sac,cpo,cvpo,sac_lag"},
        {"tasks": f"{OTHER_TASK},{TASK}"},
        {"settings": {"cost_limit": [5, 7, 10]}},
        {"settings": {"cost_limit": [5, 10], "gamma": [0.9, 0.97], "steps": [150_000, 10_000]}},
        {"policy": {"cvpo": {"preset": ["tuned", "paper"]}}},
        {"policies": "cvpo,cpo,slow", "policy": {"slow": {"policy": "cpo", "gamma": 0.9}}},
    ],
    ids=str,
)
def test_a_larger_study_leaves_the_former_names(changes):
    larger = names_of(**changes)
    # On the toy task CPO has the discount 0.99, so its runs of the changed discounts are others.
    former = {name for name in names_of() if "cvpo" in name or "gamma" not in str(changes)}
    assert len(former) >= 4
    assert former <= set(larger)
    assert len(set(larger)) == len(larger) > len(former)


def test_other_settings_have_another_name():
    assert not set(names_of(settings={"cost_limit": [5, 10], "selections": 7})) & set(names_of())


def test_names_are_plain_folder_names_and_long_ones_end_in_a_digest():
    lengths = ["/".join(["64"] * n) for n in range(1, 80, 6)]
    plan = plan_study(
        policies="cpo",
        tasks=f"toys.tasks:{TASK}",
        seeds="0-1",
        settings={"hidden_sizes": lengths, "steps": 9_000},
    )
    names = [run.name for run in plan.runs]
    assert len({name.lower() for name in names}) == len(names) == 28
    assert all(re.fullmatch(r"[\w.=+-]+", name) for name in names)
    assert max(len(name) for name in names) <= MAX_BYTES
    start = "toys.tasks-ToyLine-v0-cpo-cost_limit=10-steps=9000"
    assert names[2] == f"{start}-hidden_sizes={'+'.join(['64'] * 7)}-seed0"
    assert re.fullmatch(rf"{re.escape(start)}-[0-9a-f]{{8}}-seed0", names[-2])  # without half a setting
    assert names[-1] == names[-2].removesuffix("0") + "1"


def test_a_long_label_is_cut_too():
    label = "a" * 300
    (run,) = plan_study(policies=[label], tasks=TASK, policy={label: {"policy": "cpo"}}).runs
    assert len(run.name) == MAX_BYTES
    assert re.fullmatch(r"ToyLine-v0-a+-[0-9a-f]{8}-seed0", run.name)


# Seeds and times.


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        ("0-4", (0, 1, 2, 3, 4)), ("0,2,5", (0, 2, 5)), ("7", (7,)), (7, (7,)), ("4-4, 0 - 1", None),
        ([3, "5-6"], (3, 5, 6)), ("4-4,0-1", (4, 0, 1)), ((0,), (0,)),
    ],
)  # fmt: skip
def test_seeds_are_numbers_and_ranges(given, seeds):
    if seeds is None:
        with pytest.raises(ValueError, match="seeds must be whole numbers"):
            parse_seeds(given)
    else:
        assert parse_seeds(given) == seeds


def test_seeds_are_shown_as_ranges():
    assert [seeds_text(x) for x in ([3], [0, 1], [2, 0, 1, 7], [1, 3, 5])] == ["3", "0,1", "0-2,7", "1,3,5"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59, "less than a minute"), (61, "about 1 min"), (5300, "about 88 min"), (5401, "about 2 h"),
     (47 * 3600, "about 47 h"), (100 * 3600, "about 4 days")],
)  # fmt: skip
def test_times_are_round(seconds, text):
    assert about(seconds) == text


def test_an_estimate_knows_finished_runs_and_those_that_have_begun(tmp_path):
    plan = plan_study(
        policies="cpo,focops,ppo_lag",
        tasks=[TASK, "KnownOptimum-v0"],
        seeds="0-3",
        settings={"steps": 10_000},
        out=tmp_path,
        resources=Resources(cores=2),
    )
    states = {run.name: RunState.NEW for run in plan.runs}
    cpo = [run for run in plan.runs if (run.config.policy, run.config.task) == ("cpo", TASK)]
    for run in cpo[:2]:
        write_run(tmp_path / run.name)  # 1,000 steps in 100 s
        states[run.name] = RunState.FINISHED
    write_run(tmp_path / cpo[2].name, status="interrupted")  # at 1,000 of 10,000 steps
    states[cpo[2].name] = RunState.STARTED
    times = estimate(plan, states)
    assert times.measured == (f"cpo on {TASK}",)
    assert set(times.unknown) == {f"focops on {TASK}", f"ppo_lag on {TASK}"}
    assert set(times.assumed) == {f"{x} on KnownOptimum-v0" for x in ("cpo", "focops", "ppo_lag")}
    rates = [RATES[x]["known-optimum"] for x in ("cpo", "focops", "ppo_lag")]
    others = 4 * sum(10_000 / rate for rate in rates)
    assert times.total == pytest.approx(900 + 1000 + others)
    assert times.elapsed == pytest.approx(1000)  # one core has the new run, the other one all the rest
    on_cluster = plan_study(policies="cpo", tasks=TASK, resources=Resources(address="host:1"), out=tmp_path)
    assert estimate(on_cluster, {run.name: RunState.NEW for run in on_cluster.runs}).elapsed is None


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        (RunState.NEW, 1),
        (RunState.BROKEN, 1),
        (RunState.FINISHED, 0),
        (RunState.LOCKED, 0),
        (RunState.OTHER, 0),
    ],
)
def test_an_estimate_counts_what_the_sweep_will_run(state, counts, tmp_path):
    plan = plan_study(policies="cpo", tasks="KnownOptimum-v0", settings={"steps": 3_100}, out=tmp_path)
    write_run(tmp_path / plan.runs[0].name)  # 1,000 steps in 100 s
    speed = 10 if state is RunState.FINISHED else RATES["cpo"]["known-optimum"]
    times = estimate(plan, {plan.runs[0].name: state})
    assert times.each == {plan.runs[0].name: 3_100 / speed}
    assert times.total == counts * 3_100 / speed


def test_a_policy_without_limit_is_as_fast_as_its_counterpart():
    assert assumed_speed(make_config("sac", "KnownOptimum-v0")) == RATES["sac_lag"]["known-optimum"]
    assert assumed_speed(make_config("sac", TASK)) is None


def test_the_rates_are_near_those_of_the_committed_results():
    """New results may move a median of few runs; half to twice the rate is near enough for an estimate."""
    path = ROOT / "benchmarks" / "sweep_rates.py"
    spec = importlib.util.spec_from_file_location("sweep_rates", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    measured = module.measured_rates()
    assert {name: set(suites) for name, suites in measured.items()} == {k: set(v) for k, v in RATES.items()}
    for policy, suites in measured.items():
        for suite, rate in suites.items():
            assert RATES[policy][suite] / 2 < rate < RATES[policy][suite] * 2, (policy, suite)


# Dry runs.


def write_planned(plan, *runs, **changes):
    """Write finished run folders for some runs of a plan."""
    for run in runs:
        settings = run.config.as_dict()
        write_run(plan.folder / run.name, limits=run.config.cost_limit, settings=settings, **changes)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Return a plan whose runs differ in more than their limits, half of it finished."""
    plan = plan_study(
        policies=["cvpo", "other", "sac_lag"],
        tasks=TASK,
        seeds="0-1",
        settings={"cost_limit": [5, 10], "hidden_sizes": ["16/16", "32/32"]},
        policy={
            "cvpo": {"preset": ["tuned", "paper"]},
            "other": {"policy": "cvpo", "kl_bound": 0.3, "gamma": 0.9},
            "sac_lag": {"multiplier_gains": ["0.1/0.1/0.1", "0.2/0.1/0.1"]},
        },
        out=tmp_path_factory.mktemp("study"),
        resources=Resources(cores=1),
    )
    write_planned(plan, *[run for run in plan.runs if run.config.seed == 0])
    write_planned(plan, plan.runs[1], status="interrupted")
    (plan.folder / plan.runs[1].name / "checkpoints").mkdir()
    return plan


def test_a_dry_run_counts_what_is_done(study):
    text = plan_text(study)
    assert "runs:      40 in all, 20 finished, 1 to continue, 19 to begin" in text
    lines = text.splitlines()
    assert len([line for line in lines if line.startswith(TASK)]) == 20
    assert re.search(
        r"^ToyLine-v0 +cvpo +cost_limit=5 preset=tuned hidden_sizes=16/16 +0,1 +1 +1 +0 ", text, re.M
    )
    assert "other (cvpo)" in text
    assert "from the finished runs here" in text


def test_a_dry_run_names_runs_that_are_in_the_way(tmp_path):
    plan = plan_study(policies="cpo", tasks=TASK, seeds="0-1", out=tmp_path)
    write_planned(plan, plan.runs[0])
    result = tmp_path / plan.runs[0].name / "result.json"
    data = json.loads(result.read_text())
    data["config"]["policy_config"]["gamma"] = 0.5
    result.write_text(json.dumps(data))
    text = plan_text(plan)
    assert "2 in all, 1 to begin, 1 in the way" in text
    line = text.splitlines()[-1]
    assert line.startswith(f"{plan.runs[0].name} has other settings: gamma is 0.5 there")
    assert line.endswith("the study needs another folder")
    result.write_text("half")
    line = plan_text(plan).splitlines()[-1]
    assert line.startswith(f"{plan.runs[0].name} cannot be continued: ")
    assert line.endswith("it begins anew")


def test_the_fields_of_a_dry_run_tell_the_rows_of_a_table_apart(study, capsys):
    fields = telling_fields(study)
    command = next(line for line in plan_text(study).splitlines() if line.startswith("compare:"))
    assert command.endswith(f"fsrl-ext table {study.folder} --by {','.join(fields)}")
    assert fields[0] == "policy"
    assert main([*command.split()[2:], "--part", "policies"]) == 0
    out = capsys.readouterr().out
    assert out.count(f"\n{TASK} ") == 20
    assert "are in one row" not in out
    assert "more than one run of seed" not in out
    # One field less would put different runs in one row.
    for field in fields[1:]:
        fewer = ",".join(x for x in fields if x != field)
        assert main(["table", str(study.folder), "--by", fewer, "--part", "policies"]) == 0
        assert capsys.readouterr().out.count(f"\n{TASK} ") < 20


def test_a_given_field_tells_rows_apart_before_those_that_a_preset_changes():
    other = {"policy": "cvpo", "preset": "paper", "kl_bound": 0.3}
    plan = plan_study(policies=["cvpo", "other"], tasks=TASK, policy={"other": other})
    assert telling_fields(plan) == ["policy", "kl_bound"]
    del other["kl_bound"]
    plan = plan_study(policies=["cvpo", "other"], tasks=TASK, policy={"other": other})
    assert len(telling_fields(plan)) == 2


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "--policies", "cpo", "--tasks", TASK, "--dry-run"]) == 0
    assert "time:      unknown, because no speed is known of cpo on ToyLine-v0" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failed", "unfinished", "code"), [([], [], 0), (["a"], [], 1), ([], ["b"], 1)], ids=str
)
def test_the_exit_code_says_whether_all_runs_have_finished(
    failed, unfinished, code, tmp_path, monkeypatch, capsys
):
    plans = []

    def run_plan(plan, *, show_progress):
        plans.append((plan, show_progress))
        return types.SimpleNamespace(finished=["c", "d"], failed=failed, unfinished=unfinished)

    driver = types.SimpleNamespace(run_plan=run_plan)
    monkeypatch.setitem(sys.modules, "fsrl_ext.experiment.sweeps.drive", driver)
    monkeypatch.chdir(tmp_path)
    arguments = ["sweep", "--policies", "cpo", "--tasks", TASK, "--seeds", "0-2", "--quiet"]
    assert main(arguments) == code
    ((plan, show_progress),) = plans
    assert len(plan.runs) == 3
    assert plan.command == " ".join(["fsrl-ext", *arguments])
    assert not show_progress
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 of 3 runs have finished, in study"
    assert (f"to go on: {plan.command}" in lines) == bool(code)
    assert any(line.startswith("failed: a; ") for line in lines) == bool(failed)


# The page and the example.


def test_the_page_shows_the_file_of_the_example():
    (file, *others) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    text = (ROOT / "examples" / "study.toml").read_text()
    assert text.endswith(file)
    assert len(others) == 1
    assert tomllib.loads(others[0])["policy"]["careful"]["policy"] == "cvpo"


def test_the_second_file_of_the_page_is_a_study(tmp_path):
    others = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1]
    plan = by_file(tmp_path, others, "--tasks", TASK)
    assert [run.label for run in plan.runs] == ["cvpo", "careful"]


def test_the_options_of_the_page_are_the_study_of_its_file():
    text = re.search(r"^\$ fsrl-ext sweep (--policies .*) --dry-run$", PAGE, re.MULTILINE)[1]
    one, other = by_options(*text.split()), read_study_file(ROOT / "examples" / "study.toml").plan("")
    assert (one.runs, one.folder, one.resources) == (other.runs, other.folder, other.resources)
    assert len(one.runs) == 4


def page_commands():
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        command, _, output = block.removeprefix("$ ").partition("\n")
        yield command, output


@pytest.mark.parametrize(("command", "output"), list(page_commands()))
def test_a_dry_run_prints_what_the_page_shows(command, output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "study.toml", tmp_path / "examples")
    assert main(command.split()[1:]) == 0
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in output.splitlines()
    )
    printed = capsys.readouterr().out
    assert re.fullmatch(pattern, printed), f"the page no longer shows what '{command}' prints:\n{printed}"


def test_the_python_of_the_page_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], {})
    assert capsys.readouterr().out.startswith("8 KnownOptimumFirstSix-v0-cpo-cost_limit=2-")


@pytest.mark.parametrize("key", KEYS)
def test_the_page_explains_every_key(key):
    assert re.search(rf"\| .*[`\[]{key}\b", PAGE)


# What is refused.

GIVEN = ("--policies", "cvpo,sac_lag", "--tasks", TASK)
BAD_OPTIONS = [
    ([], "a study needs policies"),
    (["--policies", "cvpo"], "a study needs tasks"),
    (["--policies", "cvop", "--tasks", TASK], "unknown policy 'cvop'; did you mean cvpo?"),
    (["--policies", "cvpo,cvpo", "--tasks", TASK], "policies must be different, got cvpo twice"),
    (["--policies", "", "--tasks", TASK], "policies must be one name or more, got []"),
    (["--policies", "cvpo,", "--tasks", TASK], "policies must be one name or more"),
    (["--policies", "cvpo", "--tasks", "ToyLin-v0"], "unknown task 'ToyLin-v0'; did you mean ToyLine-v0"),
    (["--policies", "cvpo", "--tasks", "nowhere:Cart-v0"], "the module of 'nowhere:Cart-v0' cannot be"),
    (["--policies", "cvpo", "--tasks", "ToyLineTwoCosts-v0"], "cost_limit must have one number per cost"),
    (["--policies", "cvpo", "--tasks", "MetaAim"], "'MetaAim' is a family of tasks, on which meta_cpo and"),
    (["--policies", "meta_cpo", "--tasks", TASK], "unknown family 'ToyLine-v0'"),
    ([*GIVEN, "--seeds", "4-0"], "seeds must be ranges from a smaller to a larger seed, got '4-0'"),
    ([*GIVEN, "--seeds", "1,0-2"], "seeds must be different, got 1 twice"),
    ([*GIVEN, "--seeds", ""], "seeds must have at least one seed"),
    ([*GIVEN, "--seeds", "one"], "seeds must be whole numbers >= 0, such as 0-4 or 0,2,5, got 'one'"),
    ([*GIVEN, "--seeds=-1"], "seeds must be whole numbers"),
    ([*GIVEN, "--seeds", "9" * 30], "seed must be a whole number in [0, 2**32)"),
    ([*GIVEN, "--seeds", "0-" + "9" * 30], "seeds must be at most 10,000"),
    ([*GIVEN, "--gamma", "0.9,0.9"], "gamma must have different values, got 0.9 twice"),
    ([*GIVEN, "--gamma", "0.9,2"], "cvpo on ToyLine-v0: gamma must be in (0, 1)"),
    ([*GIVEN, "--gamma", ""], "gamma must have at least one value"),
    ([*GIVEN, "--gamma", "0.9,"], "gamma must be a number, got ''"),
    ([*GIVEN, "--hidden-sizes", "128,128"], "written with slashes, such as 128/128"),
    ([*GIVEN, "--hidden-sizes", "128/x"], "or several separated by slashes, got '128/x'"),
    ([*GIVEN, "--cost-limits", "5,5.0"], "cost_limit must have different values, got 5 twice"),
    ([*GIVEN, "--cost-limits", "5/10"], "cost_limit must have one number per cost"),
    ([*GIVEN, "--cost-limits=-5"], "cost_limit must be >= 0"),
    ([*GIVEN, "--kl-bound", "0.1"], "sac_lag has no setting kl_bound; give it to the policies that have it"),
    ([*GIVEN, "--clip", "0.1"], "cvpo, sac_lag have no setting clip"),
    ([*GIVEN, "--worker-type", "ray"], "worker_type must be process in a sweep, whose runs are what Ray"),
    ([*GIVEN, "--preset", "cal"], "cvpo on ToyLine-v0: preset must be one of tuned, paper, got 'cal'"),
    ([*GIVEN, "--gama", "0.1"], "unknown option --gama; did you mean --gamma?"),
    ([*GIVEN, "--grid", "gama=0.1"], "unknown setting 'gama' in [settings]; did you mean gamma?"),
    ([*GIVEN, "--grid", "gamma"], "--grid must be followed by setting=value[,value], got 'gamma'"),
    ([*GIVEN, "--grid", "gamma=0.9", "--gamma", "0.8"], "gamma is given twice"),
    ([*GIVEN, "--grid", "seed=1"], "seed is no setting, got it in [settings]; seeds lists them"),
    ([*GIVEN, "--for", "cvpo"], "--for must be followed by policies or tasks"),
    ([*GIVEN, "--for", "gamma=0.9"], "--for must be followed by policies or tasks"),
    ([*GIVEN, "--for", "cvop", "gamma=0.9"], "--for must name policies or tasks of the study, got 'cvop'"),
    ([*GIVEN, "--for", "cvpo", "kl_bond=0.9"], "unknown setting 'kl_bond' in [policy.cvpo]; did you mean kl"),
    ([*GIVEN, "--for", "sac_lag", "kl_bound=0.9"], "sac_lag has no setting kl_bound"),
    ([*GIVEN, "--for", TASK, "kl_bound=0.9"], "sac_lag has no setting kl_bound"),
    ([*GIVEN, "--for", "cvpo", "gamma=0.9", "--for", TASK, "gamma=0.8"], "gamma is given for cvpo and"),
    ([*GIVEN, "--for", "cvpo", "policy=sac"], "[policy.cvpo] policy must be left out"),
    ([*GIVEN, "--policies", "slow", "--for", "slow", "policy=cvop"], "unknown policy 'cvop'"),
    ([*GIVEN, "--policies", "slow", "--for", "slow", "gamma=0.9"], "[policy.slow] must name its policy"),
    (
        [*GIVEN, "--policies", "cvpo,same", "--for", "same", "policy=cvpo", "gamma=0.97"],
        "two runs must differ, and ToyLine-v0-cvpo-cost_limit=10-seed0 and ToyLine-v0-same-",
    ),
    ([*GIVEN, "--steps", "0"], "steps must be"),
    ([*GIVEN, "--device", "abacus"], "device 'abacus' cannot be used"),
    ([*GIVEN, "--cores", "0"], "cores must be a whole number >= 1, got 0"),
    ([*GIVEN, "--cores", "many"], "argument --cores: invalid int value: 'many'"),
    ([*GIVEN, "--cores", "1", "--cpus-per-run", "2"], "cpus_per_run must be at most cores=1"),
    ([*GIVEN, "--cpus-per-run", "0"], "cpus_per_run must be > 0, got 0.0"),
    ([*GIVEN, "--cpus-per-run", "1.5"], "cpus_per_run must be a whole number where it is above 1, got 1.5"),
    ([*GIVEN, "--gpus-per-run=-1"], "gpus_per_run must be >= 0"),
    ([*GIVEN, "--out", "a_run"], "out must be a folder that holds runs, and a_run is a run itself"),
    ([*GIVEN, "--out", "there.toml"], "out must be a folder, and there.toml is a file"),
    ([*GIVEN, "--out", "there.toml/below"], "out must be a folder, and there.toml is a file"),
    ([*GIVEN, "--seeds", "0-5000", "--gamma", "0.9,0.8"], "at most 10,000 runs, got 20,004"),
    (["nowhere.toml"], "the study file nowhere.toml does not exist"),
    (["cvpo", TASK], "unrecognized arguments: ToyLine-v0"),
    (["a_run"], "the study file a_run is a folder"),
]  # fmt: skip
BAD_FILES = [
    ("policies = [", "is not TOML: Invalid"),
    ("policies = cvpo", "is not TOML: Invalid value (at line 1, column 12)"),
    ("\udcff", "is not TOML"),
    ("polices = ['cvpo']", "unknown key 'polices'; did you mean policies"),
    ("x = 1", "unknown key 'x'; a study file has policies, tasks, seeds"),
    ("gamma = 0.9", "gamma must stand below [settings], [policy.NAME] or [task.NAME]"),
    ("policies = 3", "policies must be a list of names, got 3"),
    ("tasks = ['a', 1]", "tasks must be a list of names, got ['a', 1]"),
    ("out = 3", "out must be the name of a folder, got 3"),
    ("settings = 3", "[settings] must hold settings by name, got 3"),
    ("policy = 'cvpo'", "[policy] must hold settings by name, got 'cvpo'"),
    ("policy.cvpo = 'paper'", "[policy.cvpo] must hold settings by name, got 'paper'"),
    ("policy.cvpo.task = 3", "[policy.cvpo.task] must hold settings by name, got 3"),
    ("policy.cvpo.task.x = 3", "[policy.cvpo.task.x] must hold settings by name, got 3"),
    ("task.x = 3", "[task.x] must hold settings by name, got 3"),
    ("steps = 5_000\nsettings.steps = 3_000", "steps is given in [settings] and at the top of the file"),
    ("settings.gama = 0.9", "unknown setting 'gama' in [settings]; did you mean gamma?"),
    ("settings.gamma = []", "gamma must have at least one value, got an empty list"),
    ("settings.gamma = 'much'", "gamma must be a number, got 'much'"),
    ("settings.gamma = {a = 1}", "gamma must be"),
    ("settings.steps = 1.5", "steps must be a whole number, got '1.5'"),
    ("settings.steps = true", "steps must be a whole number, got 'true'"),
    ("settings.hidden_sizes = [128, 128]", "written with slashes, such as 128/128"),
    ("settings.hidden_sizes = '128,128'", "or several separated by slashes, got '128,128'"),
    ("settings.seed = 3", "seed is no setting, got it in [settings]; seeds lists them"),
    ("policy.cvop.gamma = 0.9", "[policy.cvop] must be about a policy of the study; did you mean cvpo?"),
    ("task.ToyLin-v0.gamma = 0.9", "[task.ToyLin-v0] must be about a task of the study; did you mean ToyL"),
    ("policy.cvpo.task.ToyLin-v0.gamma = 0.9", "[policy.cvpo.task.ToyLin-v0] must be about a task of"),
    ("policy.cvpo.policy = 3", "[policy.cvpo] policy must be the name of a policy, got 3"),
    ("policy.cvpo.kl_bond = 3", "unknown setting 'kl_bond' in [policy.cvpo]; did you mean kl_bound"),
    ("settings.kl_bound = 3", "sac_lag has no setting kl_bound; give it to the policies that have it"),
    ("task.ToyLine-v0.kl_bound = 3", "sac_lag has no setting kl_bound"),
    ("policy.cvpo.preset = 'papre'", "preset must be one of tuned, paper, got 'papre'; did you mean paper?"),
    ("seeds = '3-1'", "seeds must be ranges from a smaller to a larger seed"),
    ("seeds = []", "seeds must have at least one seed"),
    ("seeds = [true]", "seeds must be whole numbers"),
    ("seeds = 1.5", "seeds must be"),
    ("seeds = {a = 1}", "seeds must be"),
    ("cores = 'two'", "cores must be a whole number or None, got 'two'"),
    ("cpus_per_run = [1]", "cpus_per_run must be a number, got [1]"),
    ("address = 3", "address must be text or None, got 3"),
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return an empty folder with a run in it, in which the command runs and may write nothing."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a_run")
    (tmp_path / "there.toml").write_text("")
    before = sorted(tmp_path.rglob("*"))
    yield tmp_path
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("arguments", "message"), BAD_OPTIONS, ids=lambda x: str(x)[:60])
def test_options_that_cannot_work_are_refused_in_one_line(arguments, message, here, capsys):
    assert_refused(["sweep", *arguments], message, capsys)


@pytest.mark.parametrize(("line", "message"), BAD_FILES, ids=lambda x: str(x)[:60])
def test_files_that_cannot_work_are_refused_in_one_line(line, message, here, capsys):
    file = here / "there.toml"
    names = f"policies = ['cvpo', 'sac_lag']\ntasks = ['{TASK}']\n"
    text = line if line.startswith(("policies", "polices", "tasks")) else names + line
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert_refused(["sweep", "there.toml", "--dry-run"], message, capsys)
    file.write_text("")
