"""docs/design.md, followed to the letter: its lines join a copy of the package, and its commands run."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "design.md").read_text()
# Runs command lines and scripts in one process, because its imports take longer than the commands.
DRIVER = """
import runpy, shlex, sys
from fsrl_ext.cli import main
for line in sys.argv[1:]:
    program, *arguments = shlex.split(line)
    print(f"$ {line}", flush=True)
    if program == "python":
        runpy.run_path(arguments[0])
    elif code := main(arguments):
        sys.exit(f"{line}: {code}")
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


FILES = {re.match(r"# (\S+)\n", block)[1]: block.partition("\n")[2] for block in blocks("python")}
COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


def add_lines(folder, change):
    """Makes a change of the page in a copy of the package: lines with a plus are new, the others there."""
    header, _, body = change.partition("\n")
    path = folder / header.removeprefix("--- ")
    text = path.read_text()
    for hunk in re.split(r"^@@\n", body, flags=re.MULTILINE):
        lines = hunk.splitlines()
        assert {line[0] for line in lines} == {" ", "+"}
        before, after = ([x[1:] for x in lines if x[0] in marks] for marks in (" ", " +"))
        old, new = ("\n" + "\n".join(x) + "\n" for x in (before, after))
        assert text.count(old) == 1, f"{path.name} has these lines {text.count(old)} times:{old}"
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the page's commands print, and the folder that they ran in."""
    folder = tmp_path_factory.mktemp("design")
    shutil.copytree(ROOT / "fsrl_ext", folder / "fsrl_ext", ignore=shutil.ignore_patterns("__pycache__"))
    for name, code in FILES.items():
        assert not (folder / name).exists(), f"{name} is there already"
        (folder / name).write_text(code)
    for change in blocks("diff"):
        add_lines(folder, change)
    *first, last = COMMANDS  # the last one is about the run of the script, too
    (script,) = (name for name in FILES if "/" not in name)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *first, f"python {script}", last],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    parts = re.split(r"^\$ (.*)\n", done.stdout, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True)), folder


def output(printed, start):
    """What the only command that begins like this printed."""
    ((_, text),) = [(line, text) for line, text in printed[0].items() if line.startswith(start)]
    return text


@pytest.mark.slow
class TestFollowed:
    def test_the_suite_is_listed_and_keeps_the_contract(self, printed):
        listed = re.findall(
            r"^(Corridor\S+) +corridor +50 +no", output(printed, "fsrl-ext list"), re.MULTILINE
        )
        assert listed == ["CorridorWide-v0", "CorridorNarrow-v0"]
        assert re.search(r"CorridorNarrow-v0: \d+ ok, 0 failed", output(printed, "fsrl-ext check"))

    def test_the_algorithm_trains_on_a_task_of_the_suite(self, printed):
        config = json.loads((printed[1] / "runs" / "first" / "config.json").read_text())
        assert (config["policy"], config["policy_config"]["price"]) == ("ddpg_price", 2.0)
        result = json.loads((printed[1] / "runs" / "first" / "result.json").read_text())
        assert (result["status"], result["env_step"]) == ("finished", 600)
        rows = (printed[1] / "runs" / "first" / "progress.csv").read_text().splitlines()
        place = rows[0].split(",").index("update/constraint/multiplier")
        assert {row.split(",")[place] for row in rows[1:]} <= {"", "2.0"}
        assert config["cost_limit"] == [5.0]

    def test_the_logger_gets_what_the_run_logs(self, printed):
        lines = [json.loads(x) for x in (printed[1] / "numbers.jsonl").read_text().splitlines()]
        assert {"train", "test", "update"} <= {x["group"] for x in lines}
        (update,) = [x for x in lines if x["group"] == "update" and "loss/actor" in x][-1:]
        assert (update["step"], update["constraint/multiplier"]) == (400, 1.0)

    def test_the_command_answers(self, printed):
        rows = re.findall(r"^runs/(\w+) +\d+\.\d$", output(printed, "fsrl-ext seconds"), re.MULTILINE)
        assert rows == ["first", "second"]


def test_the_page_names_the_imports_that_are_allowed():
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text())
    values = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE))
    assert rows.pop("cli") == "every room"
    named = {room: set(re.findall(r"`(\w+)`", cell)) for room, cell in rows.items()}
    assert named == ast.literal_eval(values["ALLOWED"])
    everyone = ast.literal_eval(values["EVERYONE"]) - {"__version__"}
    assert all(f"`{name}.py`" in PAGE or f"`{name}/`" in PAGE for name in everyone)


def test_the_methods_that_the_page_names_exist():
    table = PAGE.partition("| family | base class | methods |")[2].partition("\n\n")[0]
    source = "\n".join(path.read_text() for path in (ROOT / "fsrl_ext" / "policy").rglob("*.py"))
    bases, methods = re.findall(r"`([A-Z]\w+)`", table), re.findall(r"`([a-z_]\w*)`", table)
    assert len(bases) == 3
    assert len(methods) > 8
    for name in bases:
        assert f"class {name}(" in source
    for name in methods:
        assert f"def {name}(" in source
