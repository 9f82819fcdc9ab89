"""JSON files are strict, and numbers that JSON lacks come back as numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fsrl_ext.report.files import from_json, in_json, read_json, replacing, write_json

DATA = {
    "limits": (math.inf, 3.0, -math.inf),
    "nested": [{"mean": math.nan, "array": [np.float64("inf"), np.float64(1.5)]}],
    "text": "Infinity War",
    "whole": 3,
    "none": None,
    "yes": True,
}


def refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def test_what_is_written_is_strict_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, DATA)
    strict = json.loads(path.read_text(), parse_constant=refuse)
    assert strict["limits"] == ["Infinity", 3.0, "-Infinity"]
    assert strict["nested"] == [{"mean": "NaN", "array": ["Infinity", 1.5]}]
    assert {key: strict[key] for key in ("text", "whole", "none", "yes")} == {
        key: DATA[key] for key in ("text", "whole", "none", "yes")
    }
    assert path.read_text().endswith("}\n")


def test_numbers_come_back_as_numbers(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, DATA, indent=1)
    for back in (read_json(path), from_json(in_json(DATA)), from_json(DATA)):
        assert back["limits"] == [math.inf, 3.0, -math.inf]
        assert math.isnan(back["nested"][0]["mean"])
        assert back["nested"][0]["array"] == [math.inf, 1.5]
        assert (back["text"], back["whole"], back["none"], back["yes"]) == ("Infinity War", 3, None, True)


def test_bare_constants_of_older_files_are_read(tmp_path):
    path = tmp_path / "old.json"
    path.write_text('{"cost_limit": [Infinity, -Infinity], "mean": NaN}')
    assert read_json(path)["cost_limit"] == [math.inf, -math.inf]
    assert math.isnan(read_json(path)["mean"])
    old = Path(__file__).parents[1] / "experiment" / "data" / "v0_1_0" / "sac" / "result.json"
    with pytest.raises(ValueError, match="Infinity is no JSON"):
        json.loads(old.read_text(), parse_constant=refuse)
    assert read_json(old)["config"]["cost_limit"] == [math.inf]


def interrupted(path):
    with replacing(path) as file:
        file.write(b"half of the sec")
        raise KeyboardInterrupt


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.bin"
    with replacing(path) as file:
        file.write(b"first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert path.read_bytes() == b"first"
    with replacing(path) as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"
    assert [x.name for x in tmp_path.iterdir()] == ["a.bin"]


def test_a_symbolic_link_is_replaced_and_its_target_stays(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    link = tmp_path / "result.json"
    link.symlink_to(target)
    write_json(link, {"a": 1})
    assert target.read_text() == "mine"
    assert not link.is_symlink()
    assert read_json(link) == {"a": 1}
