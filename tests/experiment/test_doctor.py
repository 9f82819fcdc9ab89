"""``fsrl-ext doctor``: what it says of installations in which something is missing, broken, or aborts."""

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fsrl_ext
from fsrl_ext.doctor.examine import EXTRAS, Probed, _of_stage, _read, _start
from fsrl_ext.doctor.packages import examine_packages, install_command, is_allowed, requirements
from fsrl_ext.doctor.probes import SIMULATORS, TASK
from fsrl_ext.env import list_tasks
from fsrl_ext.env.suite_tasks import SUITES

ROOT = Path(fsrl_ext.__file__).parents[1]


def doctor(folder, code="", *, options=("--json",), **modules):
    """Run the command where some modules are others.

    :param code: what every process does at its start.
    :param modules: the code of modules that take the place of installed ones.
    """
    folder.mkdir(exist_ok=True)
    for name, text in {"sitecustomize": code, **modules}.items():
        (folder / f"{name}.py").write_text(text)
    path = os.pathsep.join((str(folder), str(ROOT)))
    return subprocess.run(
        [sys.executable, "-m", "fsrl_ext.cli", "doctor", *options],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def by_name(done):
    """The findings of a report, by section and name."""
    return {(x["section"], x["name"]): x for x in json.loads(done.stdout)["findings"]}


@pytest.fixture(scope="module")
def without_simulators(tmp_path_factory):
    """The report where one simulator is not installed and the other one aborts its process."""
    pytest.importorskip("bullet_safety_gym")
    pytest.importorskip("mujoco")
    blocked = "import sys\nsys.modules['bullet_safety_gym'] = None\n"
    return doctor(tmp_path_factory.mktemp("stubs"), blocked, safety_gymnasium="import os\nos.abort()\n")


def test_training_works_without_any_simulator(without_simulators):
    assert without_simulators.returncode == 0, without_simulators.stderr
    assert json.loads(without_simulators.stdout)["ok"] is True
    found = by_name(without_simulators)
    assert {x["status"] for (section, _), x in found.items() if section == "core"} == {"ok"}
    assert found["core", "training"]["message"] == f"a step of {TASK} was taken"
    assert found["core", "torch"]["message"].startswith("2.")
    assert found["machine", "cores"]["message"].endswith("may be used")


def test_a_simulator_that_is_not_installed_comes_with_its_command(without_simulators):
    found = by_name(without_simulators)["simulators", "bullet-safety-gym"]
    assert found["status"] == "missing"
    assert found["mend"] == 'pip install "fsrl_ext[bullet]"'


def test_a_simulator_that_aborts_is_reported(without_simulators):
    found = by_name(without_simulators)["simulators", "safety-gymnasium"]
    assert found["status"] == "fails"
    assert found["message"] == "cannot be imported: the process was ended by SIGABRT"
    assert "fsrl_ext[safety]" in found["mend"]
    assert ("drawing", "safety-gymnasium") not in by_name(without_simulators)


def test_without_a_package_of_the_core_the_code_is_one(tmp_path):
    blocked = "import sys\nfor name in ('gymnasium', 'pybullet', 'mujoco'): sys.modules[name] = None\n"
    done = doctor(tmp_path, blocked, options=())
    assert done.returncode == 1, done.stderr
    assert "training does not work here" in done.stdout
    (line,) = [x for x in done.stdout.splitlines() if " training " in x]
    assert "fails" in line
    assert "cannot be imported" in line
    assert "gymnasium" in line


class TestPackages:
    @pytest.mark.parametrize(
        ("version", "wanted", "allowed"),
        [
            ("1.2.0", ">=1.2,<2", True),
            ("1.2", "==1.2.0", True),
            ("2.0.0", ">=1.2,<2", False),
            ("1.1.9", "<2,>=1.2", False),
            ("2.13.0+cpu", ">=2.4", True),
            ("0.29.1", ">=0.28.1,<0.29", False),
            ("1.26.4", "", True),
            ("1.10", ">1.9", True),
            ("3.0.0", "<=2.9", False),
        ],
    )
    def test_versions_are_compared_by_their_numbers(self, version, wanted, allowed):
        assert is_allowed(version, wanted) is allowed

    def test_the_packages_are_those_of_setup_cfg(self):
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        extras = {name for name in config["options.extras_require"] if name != "dev"}
        assert set(requirements()) == {"", *extras}
        core = config["options"]["install_requires"].split()
        assert len(requirements()[""]) == len(core)
        assert all(any(line.startswith(name) for line in core) for name in requirements()[""])

    def test_what_is_missing_and_what_is_too_old_is_said(self, monkeypatch):
        versions = {"torch": None, "numpy": "2.1.0", "mujoco": "3.5.0"}
        monkeypatch.setattr("fsrl_ext.doctor.packages.installed_version", lambda name: versions.get(name))
        found = {x.name: x for x in examine_packages()}
        assert (found["torch"].status, found["torch"].mend) == ("missing", 'pip install "torch>=2.4"')
        assert found["numpy"].status == "fails"
        assert found["numpy"].message.startswith("2.1.0, and ")
        assert "bullet-safety-gym is not installed" in found["[bullet]"].message
        assert (
            f"mujoco is 3.5.0, and {requirements()['safety']['mujoco']} is needed"
            in found["[safety]"].message
        )

    def test_elsewhere_the_packages_are_those_of_the_metadata(self, monkeypatch):
        lines = [
            "torch>=2.4",
            "numpy<2,>=1.26",
            "ray[tune]>=2.40; extra == 'sweep'",
            "ruff>=0.6; extra == 'dev'",
        ]
        monkeypatch.setattr("fsrl_ext.doctor.packages.SETUP", ROOT / "no_such_file")
        monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
        wanted = requirements()
        assert wanted[""] == {"torch": ">=2.4", "numpy": "<2,>=1.26"}
        assert wanted["sweep"] == {"ray": ">=2.40"}
        assert "dev" not in wanted

    def test_requirements_of_other_versions_of_python_are_left_out(self, monkeypatch):
        lines = [
            "mujoco==2.3.3; python_version < '3.12' and extra == 'safety'",
            "mujoco<3.2,>=3.1; python_version >= '3.12' and extra == 'safety'",
            "pybullet-arm64==3.2.8; python_version >= '3.12' and extra == 'bullet'",
        ]
        monkeypatch.setattr("fsrl_ext.doctor.packages.SETUP", ROOT / "no_such_file")
        monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
        for python, mujoco, bullet in (((3, 11, 7), "==2.3.3", False), ((3, 12, 1), "<3.2,>=3.1", True)):
            monkeypatch.setattr("sys.version_info", python)
            wanted = requirements()
            assert wanted["safety"]["mujoco"] == mujoco
            assert ("pybullet-arm64" in wanted.get("bullet", {})) is bullet

    def test_without_metadata_that_is_the_finding(self, monkeypatch):
        monkeypatch.setattr("fsrl_ext.doctor.packages.SETUP", ROOT / "no_such_file")
        monkeypatch.setattr("fsrl_ext.doctor.packages.PACKAGE", "no_such_package")
        (found,) = examine_packages()
        assert (found.section, found.status) == ("core", "missing")

    def test_commands_and_tasks_are_those_of_the_suites(self):
        for suite, extra in EXTRAS.items():
            assert install_command(extra) == SUITES[suite].install
        assert EXTRAS.keys() == SIMULATORS.keys()
        tasks = {x.id: x.suite for x in list_tasks()}
        assert all(tasks[task] == suite for suite, (_, task) in SIMULATORS.items())
        assert all(module in SUITES[suite].modules for suite, (module, _) in SIMULATORS.items())


class TestProbes:
    def test_a_probe_that_does_not_end_is_ended(self):
        assert _read(_start(("core",)), 0.01).error == "it did not end within 0.01 seconds"

    def test_a_stage_that_fails_after_another_is_named(self):
        found = Probed(begun=["import", "step"], ended={"import": "yes"}, error="ValueError: no")
        finding = _of_stage("simulators", "a", found, ("import", "step"), "mend it")
        assert finding.message == "cannot take a step: ValueError: no"
        assert finding.mend == "mend it"

    def test_an_error_of_a_probe_is_its_last_word(self):
        found = _read(_start(("simulator", "no-such-suite")), 100)
        assert found.error.startswith("KeyError")
        assert not found.missing
