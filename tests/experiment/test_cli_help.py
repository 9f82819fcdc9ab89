"""What the command line says of itself: help with examples, completion in a shell, pages in errors."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import fsrl_ext
from fsrl_ext.cli import _command_parser, _parser, main
from fsrl_ext.cli.failures import COMMAND_PAGES, PAGES
from fsrl_ext.cli.options import join_numbers
from fsrl_ext.cli.setting_groups import COMMON, GROUPS, grouped
from fsrl_ext.cli.train import settings_of_several
from fsrl_ext.cli.train_options import all_settings
from fsrl_ext.experiment.settings import Setting, list_settings

ROOT = Path(fsrl_ext.__file__).parents[1]
COMMANDS = list(_parser([])._subparsers._group_actions[0].choices)
CALL = re.compile(r"fsrl-ext ([^#>)\n]*)")


def shown(capsys, *arguments):
    """Return the help of a command."""
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--help"])
    return capsys.readouterr().out


def examples(text):
    """Return the arguments of the calls below the last heading of a help."""
    last = re.split(r"^examples?:$", text.replace("\\\n", ""), flags=re.MULTILINE)
    assert len(last) == 2, "one heading"
    return [shlex.split(call) for call in CALL.findall(last[1])]


class TestExamples:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_help_ends_with_calls_of_the_command(self, command, capsys):
        calls = examples(shown(capsys, command))
        assert any(call[0] == command for call in calls)
        for call in calls:
            if "--help" not in call:
                parser = _parser(call)
                parser.parse_args(join_numbers(call, settings_of_several(call)))

    def test_so_does_the_help_of_all_commands(self, capsys):
        text = shown(capsys)
        assert {call[0] for call in examples(text)} <= {*COMMANDS, "COMMAND"}
        assert all(re.search(rf"^    {command}\b", text, re.MULTILINE) for command in COMMANDS)


class TestGroups:
    @pytest.mark.parametrize("policy", ["cvpo", "sac_lag", "ppo", "meta_cpo"])
    def test_the_help_has_every_setting_once_and_the_common_ones_first(self, policy, capsys):
        text = shown(capsys, "train", policy)
        titles = re.findall(r"^([a-z].*):$", text.partition("examples:")[0], re.MULTILINE)
        assert titles[:3] == ["positional arguments", "options", COMMON]
        assert [x for x in GROUPS if x in titles] == titles[2:]
        options = re.findall(r"^  --(\S+)", text, re.MULTILINE)
        names = {x.replace("_", "-") for x in list_settings(policy)} - {"policy", "task"}
        assert names <= set(options)
        assert len(set(options)) == len(options)
        assert options[:5] == ["cost-limit", "costs", "steps", "seed", "preset"]
        assert options[-1] == "device"

    def test_the_usage_is_short(self, capsys):
        assert shown(capsys, "train", "cvpo").startswith("usage: fsrl-ext train POLICY TASK [--SETTING VALUE")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("cost-level", "measured|critic"),
            ("shared-body", "true|false"),
            ("deterministic-eval", "true|false"),
            ("workers", "VALUE|auto"),
            ("cost-limit", "VALUE[,VALUE]"),
            ("gamma", "VALUE"),
            ("average-tau", "VALUE"),
        ],
    )
    def test_a_setting_shows_the_words_that_it_takes(self, name, value, capsys):
        assert f"  --{name} {value}" in re.split(r"\n| {2,}(?=[A-Z])", shown(capsys, "train", "cvpo"))

    def test_no_setting_is_in_two_groups_and_every_name_is_a_setting(self):
        names = [name for group in GROUPS.values() for name in group]
        assert len(set(names)) == len(names)
        assert set(names) <= set(all_settings())

    def test_a_setting_of_another_package_is_shown_too(self):
        own = {name: Setting(f"own_{name}", name, int, "") for name in ("run", "policy", "training")}
        groups = grouped({x.name: x for x in own.values()})
        assert groups[COMMON] == ["own_run"]
        assert groups["the algorithm"] == ["own_policy"]
        assert groups["data"] == ["own_training"]

    def test_titles_name_pages_that_exist(self):
        pages = re.findall(r"\((docs/.*?)\)", " ".join(GROUPS))
        assert len(pages) >= 3
        assert all((ROOT / page).is_file() for page in pages)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Return the file of the script for bash."""
    file = tmp_path_factory.mktemp("completion") / "fsrl-ext"
    with pytest.MonkeyPatch.context() as patch, file.open("w") as out:
        patch.setattr("sys.stdout", out)
        assert main(["completion", "bash"]) == 0
    return file


class TestCompletion:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["tra"], ["train"]),
            (["train", "cv"], ["cvpo"]),
            (["train", "cvpo", "SafetyBallC"], ["SafetyBallCircle-v0"]),
            (["train", "meta_cpo", "SafetyPointStb"], ["SafetyPointStbutton0-v0", "SafetyPointStbutton1-v0"]),
            (["train", "cvpo", "SafetyBallCircle-v0", "--kl-bound-m"], ["--kl-bound-mean"]),
            (["train", "cvpo", "SafetyBallCircle-v0", "--solver", ""], ["exact", "slsqp"]),
            (["train", "cvpo", "SafetyBallCircle-v0", "--shared-body", "t"], ["true"]),
            (["train", "cvpo", "SafetyBallCircle-v0", "--preset", "pa"], ["paper"]),
            (["sweep", "--policies", "foc"], ["focops"]),
            (["evaluate", "somewhere", "--checkpoint", ""], ["best", "last"]),
            (["evaluate", "somewhere", "--task", "SafetyAntC"], ["SafetyAntCircle-v0"]),
            (["evaluate", "--vi"], ["--video", "--video-episodes"]),
            (["evaluate", "somewhere", "--video", ""], []),  # a file, which the shell completes
            (["evaluate", ""], []),
            (["list", "pol"], ["policies"]),
            (["zoo", "cvpo-b"], ["cvpo-ball-circle"]),
            (["check", "SafetyAntC"], ["SafetyAntCircle-v0"]),
        ],
        ids=lambda x: " ".join(x),
    )
    def test_bash_completes(self, script, words, expected):
        typed = " ".join(shlex.quote(word) for word in ["fsrl-ext", *words])
        code = (
            f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _fsrl_ext; "
            "printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        out = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
        assert out.stderr == ""
        completed = out.stdout.split()
        assert completed[: len(expected)] == expected
        assert bool(completed) == bool(expected)

    def test_every_command_and_option_is_in_the_script(self, script):
        text = script.read_text()
        for command in COMMANDS:
            for action in _command_parser(command)._actions:
                assert all(f" {x}" in text or f"'{x}" in text for x in action.option_strings if x[:2] == "--")

    def test_zsh_gets_the_same_with_its_emulation(self, script, capsys):
        assert main(["completion", "zsh"]) == 0
        first, _, rest = capsys.readouterr().out.partition("\n")
        assert first == "autoload -U +X bashcompinit && bashcompinit"
        assert rest == script.read_text()


class TestPages:
    def test_every_page_exists_and_every_error_does(self):
        sources = "\n".join(path.read_text() for path in (ROOT / "fsrl_ext").rglob("*.py"))
        assert set(PAGES) <= set(re.findall(r"^class (\w+)\(", sources, re.MULTILINE))
        assert set(COMMAND_PAGES) <= set(COMMANDS)
        for page in {*PAGES.values(), *COMMAND_PAGES.values()}:
            assert (ROOT / page).is_file(), page

    @pytest.mark.parametrize(
        ("arguments", "page"),
        [
            (["evaluate", "nowhere"], "runs"),
            (["resume", "nowhere"], "runs"),
            (["evaluate", "damaged.pt"], "trust"),
            (["evaluate", "zoo:cvpo-car-circle", "--episodes", "0"], "evaluation"),
            (["evaluate", "zoo:cvpo-car-circle", "--cost-limit", "5,6"], "many_costs"),
            (["adapt", "zoo:cvpo-car-circle", "--task", "SafetyPointStcircle2-v0"], "algorithms/meta_cpo"),
            (["train", "cvop", "SafetyCarCircle-v0"], "choosing"),
            (["train", "cvpo", "SafetyCarCircel-v0"], "environments"),
            (["train", "cvpo", "SafetyPointStcircle"], "meta_tasks"),
            (["train", "cvpo", "no_such_module:Cart-v0"], "your_own_environment"),
            (["train", "cvpo", "SafetyCarCircle-v0", "--cost-limit", "5,6"], "many_costs"),
            (["train", "meta_cpo", "Nobodys"], "meta_tasks"),
            (["train", "cvpo", "SafetyPointGoal2-v0", "--costs", "9lives"], "many_costs"),
            (["sweep", "--policies", "cvop", "--tasks", "SafetyCarCircle-v0"], "choosing"),
            (["sweep", "--policies", "cvpo"], "sweeps"),
            (["export", "damaged.pt", "--format", "torchscript", "--out", "damaged.pt"], "export"),
            (["zoo", "nobody"], "zoo"),
        ],
        ids=lambda x: " ".join(x) if isinstance(x, list) else x,
    )
    def test_an_error_names_the_page_that_helps(self, arguments, page, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "damaged.pt").write_text("no checkpoint")
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert err.endswith(f" (see docs/{page}.md)\n"), err
        assert len(err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (
                ["train", "cvpo", "SafetyCarCircle-v0", "--cost-limt", "10"],
                "fsrl-ext train: unknown option --cost-limt; did you mean --cost-limit or --cost-unit? "
                "(see 'fsrl-ext train cvpo --help')",
            ),
            (
                ["train", "cvpo", "SafetyCarCircle-v0", "--cost_limit=10"],
                "fsrl-ext train: unknown option --cost_limit; did you mean --cost-limit? "
                "(see 'fsrl-ext train cvpo --help')",
            ),
            (
                ["train", "ppo_lag", "SafetyCarCircle-v0", "--lr", "0.1"],
                "fsrl-ext train: unknown option --lr; did you mean --multiplier-lr or --actor-lr or "
                "--critic-lr? (see 'fsrl-ext train ppo_lag --help')",
            ),
            (
                ["train", "cvpo", "SafetyCarCircle-v0", "--epoch", "10"],
                "fsrl-ext train: unknown option --epoch (see 'fsrl-ext train cvpo --help')",
            ),
            (
                ["train", "--sead", "1", "cvpo", "SafetyCarCircle-v0"],
                "fsrl-ext train: unknown option --sead; did you mean --seed? (see 'fsrl-ext train --help')",
            ),
            (
                ["evaluate", "nowhere", "--episods", "1"],
                "fsrl-ext evaluate: unknown option --episods; did you mean --episodes or --max-episodes? "
                "(see 'fsrl-ext evaluate --help')",
            ),
            (
                ["--quite", "resume", "nowhere"],
                "fsrl-ext resume: unknown option --quite; did you mean --quiet? "
                "(see 'fsrl-ext resume --help')",
            ),
            (
                ["zoo", "one", "two"],
                "fsrl-ext zoo: unrecognized arguments: two (see 'fsrl-ext zoo --help')",
            ),
        ],
        ids=lambda x: " ".join(x) if isinstance(x, list) else "",
    )
    def test_an_unknown_option_is_answered_with_the_nearest(self, arguments, line, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert capsys.readouterr().err == f"{line}\n"

    def test_a_folder_of_runs_is_answered_with_one_of_them(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "runs" / "second").mkdir(parents=True)
        (tmp_path / "runs" / "second" / "config.json").write_text("{}")
        assert main(["evaluate", "runs"]) == 2
        err = capsys.readouterr().err
        assert "; runs is a folder of runs, such as runs/second (see docs/runs.md)" in err

    def test_a_misspelt_command_is_answered_with_the_nearest(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            main(["trian"])
        assert capsys.readouterr().err.endswith("; did you mean train? (see 'fsrl-ext --help')\n")

    def test_a_setting_of_other_algorithms_is_answered_with_their_names(self, capsys):
        assert main(["train", "cvpo", "SafetyCarCircle-v0", "--clip", "0.1"]) == 2
        assert capsys.readouterr().err == "fsrl-ext: cvpo has no setting --clip; it is one of ppo_lag, ppo\n"

    def test_an_error_about_a_setting_names_none(self, capsys):
        assert main(["train", "cvpo", "SafetyBallCircle-v0", "--gamma", "1"]) == 2
        assert "docs/" not in capsys.readouterr().err
