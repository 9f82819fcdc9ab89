"""The page of a study, as text: its data, tables, films, escaping, and bad input.

test_report_page.py reads it in a browser.
"""

import base64
import hashlib
import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from toys.envs import DrawnLineEnv
from toys.settings import small_config
from toys.studies import assert_refused, write_run, write_small

from fsrl_ext.cli import main
from fsrl_ext.env import register_task
from fsrl_ext.experiment import run
from fsrl_ext.report.page import films, study_page
from fsrl_ext.report.page.html import script_data
from fsrl_ext.report.page.thin import ALL_POINTS, SEED_POINTS, numbers, points_per_curve, thinned
from fsrl_ext.report.study.collect import read_study
from fsrl_ext.report.study.select import group


def page_of(folder, tmp_path, **settings):
    """Write the page of a folder; return its text and the data of its script."""
    out = tmp_path / "page.html"
    study_page([folder], out, **settings)
    text = out.read_text()
    return text, json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def body(text):
    """The text of the page without styles, scripts and data."""
    return re.search(r"<main>.*</main>", text, re.DOTALL)[0]


def tables(text):
    """The tables of a page, each as lists of the texts of its rows."""

    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.tables, self.inside = [], False

        def handle_starttag(self, tag, attrs):
            if tag == "table":
                self.tables.append([])
            elif tag == "tr":
                self.tables[-1].append([])
            elif tag in ("td", "th"):
                self.tables[-1][-1].append("")
                self.inside = True

        def handle_endtag(self, tag):
            self.inside &= tag not in ("td", "th")

        def handle_data(self, data):
            if self.inside:
                self.tables[-1][-1][-1] += data

    reader = Reader()
    reader.feed(body(text))
    return reader.tables


class TestThinning:
    def test_the_extremes_stay_and_every_point_is_one_of_the_curve(self):
        rng = np.random.default_rng(0)
        x, y = np.arange(1234.0), rng.normal(size=1234)
        y[777], y[13] = 50.0, -50.0
        thin_x, thin_y = thinned(x, y, 100)
        assert 50 < len(thin_x) <= 100
        assert (np.diff(thin_x) > 0).all()
        np.testing.assert_array_equal(y[thin_x.astype(int)], thin_y)
        assert (thin_y.max(), thin_y.min()) == (50.0, -50.0)

    def test_a_short_curve_stays_as_it_is(self):
        x, y = np.arange(5.0), np.ones(5)
        assert thinned(x, y, 5)[0] is x

    def test_many_curves_have_fewer_points_each(self):
        assert points_per_curve(10) == SEED_POINTS
        assert 40 <= points_per_curve(2_000) <= ALL_POINTS / 2_000
        assert points_per_curve(10**9) == 40

    def test_numbers_have_five_digits(self):
        assert numbers([1 / 3, 1e-9 / 3, 20.0, np.nan, np.inf, 123456.7]) == [
            *(0.33333, 3.3333e-10, 20, None, None, 123460)
        ]


class TestCurves:
    def test_means_seeds_and_limits(self, tmp_path):
        for seed in range(2):
            rows = ((250, 1.0 + seed, 20.0), (500, 5.0, 12.0), (1000, 9.0, 8.0 + 4 * seed))
            write_run(tmp_path / f"run{seed}", seed=seed, rows=rows)
        _, data = page_of(tmp_path, tmp_path)
        (panel,) = data["panels"]
        assert (panel["title"], panel["limits"]) == ("Toy-v0", [[10]])
        (member,) = panel["groups"]
        returns, costs = member["curves"]["training"]
        assert (returns["x"][0], returns["y"][0]) == (250, 1.5)
        assert (costs["x"][-1], costs["y"][-1]) == (1000, 10)
        half = 12.706 * 0.5  # Student t with one degree of freedom, times the standard error of 1 and 2
        assert returns["low"][0] == pytest.approx(1.5 - half, rel=1e-3)
        assert costs["low"][-1] == 0  # a cost is never below 0
        second = member["seeds"][1]
        assert second["seed"] == 1
        assert second["training"][0] == {"x": [250, 500, 1000], "y": [2, 5, 9]}
        assert second["deterministic"][0] == {"x": [250, 500, 750, 1000], "y": [5, 12, 15, 20]}
        final = member["final"]["best"]
        assert (final["return"], final["within"], final["feasible"]) == ([20, 20, 20], True, [True, True])

    def test_one_run_has_no_interval(self, tmp_path):
        write_run(tmp_path / "run")
        _, data = page_of(tmp_path, tmp_path)
        (member,) = data["panels"][0]["groups"]
        assert "low" not in member["curves"]["training"][0]
        assert member["final"]["last"]["return"] == [18]

    def test_several_costs_and_no_limit(self, tmp_path):
        write_run(tmp_path / "run", limits=(10.0, np.inf), best=(20.0, (5.0, 7.0)), last=(1.0, (2.0, 3.0)))
        _, data = page_of(tmp_path, tmp_path)
        (panel,) = data["panels"]
        assert panel["limits"] == [[10], []]
        assert len(panel["groups"][0]["curves"]["training"]) == 3
        assert panel["groups"][0]["final"]["best"]["costs"] == [[5], [7]]

    def test_the_title_names_a_few_and_counts_many(self, tmp_path):
        for i in range(4):
            write_run(tmp_path / f"run{i}", policy=f"p{i}", task=f"T{i % 2}-v0", seed=i)
        assert "<h1>4 policies on T0-v0, T1-v0</h1>" in page_of(tmp_path, tmp_path)[0]
        text, _ = page_of(tmp_path, tmp_path, conditions=["policy=p3"])
        assert "<h1>p3 on T1-v0, seed 3</h1>" in text

    def test_colours_are_those_of_plot(self, tmp_path):
        for policy in ("focops", "cvpo"):
            write_run(tmp_path / policy, policy=policy)
        _, data = page_of(tmp_path, tmp_path)
        assert {name: x["colour"] for name, x in data["styles"].items()} == {
            "cvpo": "#0072B2",
            "focops": "#000000",
        }


LOGGED = {
    "constraint/multiplier": (0.5, 100.0, 2.0),
    "constraint/episode_cost": (20.0, 12.0, 8.0),
    "constraint/critic_level": (3.0, 4.0, 5.0),
    "estep/active": (1.0, 0.5, 0.0),
    "estep/slack": (0.0, 0.5, 1.0),
    "actor/kl": (0.01, 0.02, 0.04),
}


class TestDiagnostics:
    def drawn(self, tmp_path, seeds=1, **settings):
        for seed in range(seeds):
            logged = {name: [x + seed for x in values] for name, values in LOGGED.items()}
            write_run(tmp_path / f"run{seed}", seed=seed, logged=logged, **settings)
        _, data = page_of(tmp_path, tmp_path)
        (drawn,) = data["diagnostics"][0]
        return {x["title"]: x for x in drawn}

    def test_what_is_logged_is_drawn(self, tmp_path):
        drawn = self.drawn(tmp_path, multiplier_max=100.0, kl_stop=0.02)
        assert list(drawn) == [
            "Cost multiplier",
            "Cost: critic and reality",
            "E-step status",
            "KL divergence over its bound",
        ]
        multiplier = drawn["Cost multiplier"]
        (line,) = multiplier["lines"]
        assert (line["x"], line["y"]) == ([250, 500, 1000], [0.5, 100, 2])
        assert multiplier["bound"] == {"label": "cap 100", "value": 100.0}
        assert "was reached in 33.3% of the logged rows" in multiplier["text"]
        cost = drawn["Cost: critic and reality"]
        assert [x["label"] for x in cost["lines"]] == ["realised in training episodes", "level of the critic"]
        assert cost["bound"] == {"label": "limit 10", "value": 10.0}
        status = drawn["E-step status"]
        assert status["shares"]
        assert {x["label"]: x["y"] for x in status["lines"]} == {"slack": [0, 0.5, 1], "active": [1, 0.5, 0]}
        (passes,) = drawn["KL divergence over its bound"]["lines"]
        assert passes["y"] == [0.5, 1, 2]

    def test_a_cap_that_was_not_reached_and_one_that_is_none(self, tmp_path):
        assert (
            "cap of 1000 was not reached; the highest logged value is 100"
            in (self.drawn(tmp_path / "a", multiplier_max=1000.0)["Cost multiplier"]["text"])
        )
        drawn = self.drawn(tmp_path / "b", multiplier_max=None)
        assert "bound" not in drawn["Cost multiplier"]
        assert "KL divergence over its bound" not in drawn  # without a bound in the config

    def test_lines_are_means_and_bands_hold_every_value(self, tmp_path):
        line = self.drawn(tmp_path, seeds=3)["Cost multiplier"]["lines"][0]
        assert (line["y"][0], line["low"][0], line["high"][0]) == (1.5, 0.5, 2.5)

    def test_a_peak_of_one_row_among_thousands_is_in_the_band(self, tmp_path):
        rows = [(100 + i, 1.0, 5.0) for i in range(900)]
        values = [1.0] * 900
        values[333] = 77.0
        write_run(tmp_path / "run", rows=rows, logged={"constraint/multiplier": values})
        _, data = page_of(tmp_path, tmp_path)
        line = data["diagnostics"][0][0][0]["lines"][0]
        assert len(line["x"]) < 110
        assert max(line["high"]) == 77
        assert max(line["y"]) < 77

    def test_a_run_without_them_says_so(self, tmp_path):
        write_small(tmp_path / "Toy-v0" / "sac_lag" / "seed0.json")
        text, data = page_of(tmp_path, tmp_path)
        assert data["diagnostics"] == [[[]]]
        assert "No diagnostics: the runs have no progress.csv" in text


class TestTables:
    def test_feasible_rows_come_first_and_the_verdict_says_which_is_best(self, tmp_path):
        for policy, best in (("a", (99.0, (11.0,))), ("b", (20.0, (10.0,))), ("c", (15.0, (0.0,)))):
            write_run(tmp_path / policy, policy=policy, best=best)
        text, _ = page_of(tmp_path, tmp_path)
        final = tables(text)[0]
        columns = [final[0].index(x) for x in ("policy", "verdict", "best return")]
        assert [[row[i] for i in columns] for row in final[1:]] == [
            ["b", "within limit", "20.0"],
            ["c", "within limit", "15.0"],
            ["a", "above limit", "99.0 !"],
        ]
        assert (
            "b has the highest return within the limit: 20.0 at the cost 10.0, with 1 of 1 seeds feasible. "
            "Above the limit: a."
        ) in text
        assert "fewer than 5 seeds (1)" in text

    @pytest.mark.parametrize(
        ("runs", "sentence"),
        [
            (
                [{"limits": (np.inf,)}],
                "(no cost limit, 1,000 steps): cvpo has the return 20.0 at the cost 5.0.",
            ),
            ([{}], "cvpo keeps the limit with the return 20.0 at the cost 5.0, with 1 of 1 seeds feasible."),
            ([{"best": (20.0, (30.0,))}], "cvpo does not keep the limit with its best policies"),
            (
                [{"policy": p, "best": (20.0, (30.0,))} for p in "ab"],
                "no row keeps the limit with its best policies",
            ),
        ],
    )
    def test_other_verdicts(self, runs, sentence, tmp_path):
        for i, settings in enumerate(runs):
            write_run(tmp_path / f"run{i}", **settings)
        assert sentence in page_of(tmp_path, tmp_path)[0]

    def test_configs_share_and_differ(self, tmp_path):
        write_run(tmp_path / "a", policy="a", tau=0.1, only_a=3, versions={"torch": "2.4"}, command="make a")
        write_run(tmp_path / "b", policy="b", tau=0.2, versions={"torch": "2.5"}, command="make b")
        write_run(tmp_path / "c", policy="b", tau=0.2, task="Other-v0", versions={"torch": "2.5"})
        text, _ = page_of(tmp_path, tmp_path)
        found = tables(text)
        differing = next(x for x in found if x[0][0] == "setting" and ["tau", "0.2", "0.1"] in x)
        assert differing[0] == ["setting", "b", "a"]  # b on both tasks shares a column
        assert "only_a" not in [row[0] for row in differing]
        assert any(["only_a", "-", "3"] in x for x in found)
        common = next(x for x in found if x[0] == ["setting", "value"])
        assert ["gamma", "0.97"] in common
        assert "tau" not in [row[0] for row in common]
        assert any(["torch", "2.4 (1 runs), 2.5 (2 runs)"] in x for x in found)
        commands = next(x for x in found if x[0][-1] == "command")
        assert [row[-1] for row in commands[1:]] == ["not noted", "make a", "make b"]

    def test_the_selection_is_that_of_the_other_commands(self, tmp_path):
        for policy in ("a", "b"):
            for tau in (0.1, 0.2):
                write_run(tmp_path / f"{policy}{tau}", policy=policy, tau=tau)
        text, data = page_of(tmp_path, tmp_path, conditions=["policy=a"], by=["policy", "tau"])
        assert sorted(data["styles"]) == ["a 0.1", "a 0.2"]
        assert "policy, tau" in text
        assert len(tables(text)[0]) == 3

    def test_runs_that_were_left_out_are_named(self, tmp_path):
        write_run(tmp_path / "runs" / "done")
        write_run(tmp_path / "runs" / "open", status="interrupted")
        text, _ = page_of(tmp_path / "runs", tmp_path)
        assert "1 finished, 1 left out" in text
        assert "open was interrupted at 1,000 of 1,000 steps" in text


EVIL = '</script><script>document.title="bad"</script><img src=x onerror=alert(1)>"\'&amp;'


class TestEscaping:
    def test_no_text_of_a_run_is_markup(self, tmp_path):
        write_run(
            tmp_path / "a",
            policy=EVIL,
            task=EVIL,
            command=EVIL,
            versions={EVIL: EVIL},
            settings={"device": EVIL},
            **{EVIL: EVIL},
        )
        write_small(tmp_path / "Toy-v0" / "sac_lag" / EVIL.replace("/", "_") / "seed0.json")
        text, data = page_of(tmp_path, tmp_path, title=EVIL, command=EVIL)
        assert EVIL not in text
        assert "<img" not in body(text)
        assert text.count("<script") == 3 + plotly_source().count("<script")
        assert html.escape(EVIL) in text
        assert any(EVIL in name for name in data["styles"])

    def test_data_cannot_end_its_element(self):
        text = script_data({"a": EVIL, "b": "<!--"})
        assert not set("<>&") & set(text)
        assert json.loads(text) == {"a": EVIL, "b": "<!--"}

    def test_the_policy_names_the_scripts_by_their_hashes(self, tmp_path):
        write_run(tmp_path / "run")
        text, _ = page_of(tmp_path, tmp_path)
        policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
        assert policy.startswith("default-src 'none'")
        own = text.rindex("<script>") + len("<script>")
        digest = hashlib.sha256(text[own : text.rindex("</script>")].encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy
        assert "unsafe-inline" not in re.search(r"script-src ([^;]*)", policy)[1]


def plotly_source():
    """The text of the library that a page holds."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


class TestFilms:
    @staticmethod
    def groups(tmp_path, **runs):
        for name, feasible in runs.items():
            folder = write_run(
                tmp_path / name,
                seed=int(name[1:]),
                best=(20.0 + int(name[1:]), (5.0 if feasible else 50.0,)),
            )
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "best.pt").touch()
        return group(read_study([tmp_path]).runs, ["policy"])

    def test_the_feasible_run_of_the_highest_return_is_filmed(self, tmp_path):
        def film(folder, path):
            path.write_bytes(b"film of " + folder.name.encode())
            return {"return": 12.34, "cost": [6.0]}

        groups = self.groups(tmp_path, s0=True, s1=True, s2=False)
        (rollout,) = films.film_groups(groups, film, 10**6)
        assert rollout.source == f"data:video/mp4;base64,{base64.b64encode(b'film of s1').decode()}"
        assert rollout.text == (
            "seed 1, best policy, first episode of the final evaluation: return 12.3, cost 6.0 "
            "(mean of all its episodes: return 21.0, cost 5.0)"
        )

    def test_a_film_that_fails_is_a_line(self, tmp_path):
        def film(folder, path):
            raise RuntimeError("no OpenGL\nhere")

        (rollout,) = films.film_groups(self.groups(tmp_path, s0=True), film, 10**6)
        assert (rollout.source, rollout.text) == ("", "seed 0 could not be filmed: no OpenGL here")

    def test_films_keep_to_their_room(self, tmp_path):
        def film(folder, path):
            path.write_bytes(bytes(200_000))
            return {"return": 1.0, "cost": [1.0]}

        groups = self.groups(tmp_path, s0=True)
        (rollout,) = films.film_groups(groups, film, 150_000)
        assert not rollout.source
        assert "the page would become too large; 'fsrl-ext evaluate" in rollout.text
        sources = [x.source for x in films.film_groups(groups * 5, film, 600_000)]
        assert [bool(x) for x in sources] == [True, True, False, False, False]

    def test_without_a_checkpoint_there_is_a_line(self, tmp_path):
        write_run(tmp_path / "run")
        groups = group(read_study([tmp_path]).runs, ["policy"])
        (rollout,) = films.film_groups(groups, None, 10**6)
        assert "no run folder of this row has its best policy" in rollout.text

    def test_the_command_films_real_runs(self, tmp_path, capsys):
        register_task("DrawnLine-v0", entry_point=DrawnLineEnv, max_episode_steps=20)
        settings = small_config("ppo_lag", "DrawnLine-v0", steps=160, selections=1)
        run(settings, out=tmp_path / "runs", show_progress=False)
        self.groups(tmp_path / "runs", s0=True)  # its checkpoint is an empty file
        out = tmp_path / "page.html"
        assert main(["report", str(tmp_path / "runs"), "--films", "--out", str(out)]) == 0
        assert "fsrl-ext: filming" in capsys.readouterr().err
        text = body(out.read_text())
        assert text.count("<video") == 1
        film = base64.b64decode(re.search(r"data:video/mp4;base64,([^\"]*)", text)[1])
        assert film[4:8] == b"ftyp"
        assert re.search(r"Toy-v0: cvpo: seed 0 could not be filmed: .*best.pt", text)
        assert not list((tmp_path / "runs").rglob("*.mp4"))


class TestCommand:
    def test_a_page_repeats_itself_and_says_where_it_is(self, tmp_path, capsys):
        write_run(tmp_path / "run")
        write_small(tmp_path / "Toy-v0" / "sac_lag" / "long" / "seed0.json")
        pages = []
        for _ in range(2):
            assert main(["report", str(tmp_path), "--out", str(tmp_path / "a.html")]) == 0
            pages.append((tmp_path / "a.html").read_bytes())
        printed = capsys.readouterr()
        assert printed.out.startswith(f"{tmp_path / 'a.html'}: ")
        assert printed.err == ""
        assert pages[0] == pages[1]
        assert b"Command: <code>fsrl-ext report " in pages[0]
        assert b"<h1>cvpo, sac_lag on Toy-v0</h1>" in pages[0]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--where", "policy=td3"], "--where policy must be one of cvpo, got td3"),
            (["--where", "polcy=cvpo"], "did you mean 'policy'?"),
            (["--by", "nothing"], "--by must name a field"),
            (["--out", "page.pdf"], "--out must end in .html or .htm, got page.pdf"),
            (["--out", "nowhere/page.html"], "there is no folder nowhere"),
            (["--allow-import"], "--allow-import is about the tasks that --films draws"),
        ],
    )
    def test_bad_arguments(self, arguments, message, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        write_run(Path("runs/run"))
        if "--out" not in arguments:
            arguments = [*arguments, "--out", "page.html"]
        assert_refused(["report", "runs", *arguments], message, capsys)
        assert [x.name for x in tmp_path.iterdir()] == ["runs"]

    def test_folders_without_runs_and_damaged_files(self, tmp_path, capsys):
        out = tmp_path / "page.html"
        (tmp_path / "empty").mkdir()
        assert_refused(["report", str(tmp_path / "empty"), "--out", str(out)], "has no runs", capsys)
        assert_refused(["report", str(tmp_path / "no"), "--out", str(out)], "there is no folder", capsys)
        write_run(tmp_path / "runs" / "a")
        broken = write_run(tmp_path / "runs" / "b", seed=1)
        result = broken / "result.json"
        result.write_text(result.read_text()[:-40])
        arguments = ["report", str(tmp_path / "runs"), "--out", str(out)]
        assert_refused(arguments, "--skip-damaged goes on without it", capsys)
        assert not out.exists()
        assert main([*arguments, "--skip-damaged"]) == 0
        assert f"fsrl-ext: left out: {result}" in capsys.readouterr().err
        assert "1 finished, 1 left out" in out.read_text()

    def test_a_path_that_is_no_utf8(self, tmp_path):
        write_run(tmp_path / os.fsdecode(b"caf\xe9"))
        text, _ = page_of(tmp_path, tmp_path)
        assert "/caf?" in text

    def test_a_damaged_column_that_the_tables_do_not_read(self, tmp_path, capsys):
        out = tmp_path / "page.html"
        folder = write_run(tmp_path / "runs" / "a", logged=LOGGED)
        write_run(tmp_path / "runs" / "b", seed=1, logged=LOGGED)
        progress = folder / "progress.csv"
        progress.write_text(progress.read_text().replace("100.0", "abc"))
        arguments = ["report", str(tmp_path / "runs"), "--out", str(out)]
        assert_refused(arguments, "progress.csv is damaged in line 4", capsys)
        assert not out.exists()
        assert main([*arguments, "--skip-damaged"]) == 0
        assert "progress.csv is damaged in line 4" in capsys.readouterr().err
        assert "1 finished, 1 left out" in out.read_text()

    def test_without_films_nothing_that_trains_is_imported(self, tmp_path):
        write_run(tmp_path / "run")
        code = (
            "import sys\n"
            "from fsrl_ext.cli import main\n"
            f"assert main(['report', {str(tmp_path)!r}, '--out', {str(tmp_path / 'page.html')!r}]) == 0\n"
            "heavy = {'torch', 'tianshou', 'gymnasium', 'fsrl_ext.experiment'} & set(sys.modules)\n"
            "sys.exit(', '.join(sorted(heavy)) or None)"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert out.returncode == 0, out.stderr
