"""The documentation as a site: built without a warning, complete, and opened in a real headless browser."""

import html
import html.parser
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from toys.browser import chromium
from toys.page_code import python_blocks

import fsrl_ext.functional

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ROOMS = ("policy", "trainer", "data", "net", "env", "experiment", "report")
EQUATIONS = [module.name for module in pkgutil.iter_modules(fsrl_ext.functional.__path__)]
BAD = ("error", "warning")
PHONE = {"width": 390, "height": 844}


def build(source, out):
    """Build a site as ``make docs`` does, and return what ended."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-b", "html"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, str(source), str(out)], env=env, text=True, capture_output=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Builds everything once, the API reference included: about 20 s of processor time."""
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "docs", out)
    # A warning is an exit code. Packages that the reference imports may write lines of their own.
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def texts(site):
    return {path: path.read_text() for path in sorted(site.rglob("*.html"))}


class Page(html.parser.HTMLParser):
    """The ids of a page, and the addresses that it refers to."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.addresses = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        self.addresses += filter(None, (attributes.get("href"), attributes.get("src")))


@pytest.fixture(scope="module")
def pages(texts):
    return {path: Page(text) for path, text in texts.items()}


class TestComplete:
    def test_every_page_is_in_the_navigation(self, site, pages):
        names = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
        sources = {path.with_suffix(".html").as_posix() for path in names if path.parts[0] != "_build"}
        assert len(sources) >= 30
        assert sources - {"index.html"} <= set(pages[site / "index.html"].addresses)

    def test_no_link_within_the_site_is_broken(self, pages):
        broken = []
        for path, page in pages.items():
            for address in page.addresses:
                parts = urlsplit(address)
                if parts.scheme or address == "#":
                    continue
                target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
                mark = unquote(parts.fragment)
                known = not mark or target not in pages or mark in pages[target].ids
                if not target.is_file() or not known:
                    broken.append((path.name, address))
        assert broken == []

    def test_links_to_files_of_the_repository_lead_to_copies(self, site, pages):
        assert "repository/examples/mlp/car_circle.py" in pages[site / "readme.html"].addresses
        example = ROOT / "examples" / "mlp" / "car_circle.py"
        assert (site / "repository" / "examples" / "mlp" / "car_circle.py").read_text() == example.read_text()
        listed = pages[site / "repository" / "benchmarks" / "results" / "index.html"].addresses
        assert "throughput.json" in listed

    def test_formulas_need_no_script(self, site, texts):
        text = texts[site / "cost_level.html"]
        assert text.count("<math ") > 20
        assert "MathJax" not in text

    def test_formulas_read_as_they_were_written(self, texts):
        for path, text in texts.items():
            formulas = "".join(re.findall(r"<math .*?</math>", text, re.DOTALL))
            assert r"\_" not in formulas, path
            # A subscript of a letter with a hat or a bar stands beside it.
            assert not re.search(r">[ˆˉ]</mo>\s*</munderover>", formulas), path

    @pytest.mark.parametrize("room", ROOMS)
    def test_the_reference_has_every_public_name(self, room, site, pages):
        module = importlib.import_module(f"fsrl_ext.{room}")
        names = {f"fsrl_ext.{room}.{name}" for name in module.__all__}
        assert names <= pages[site / "api" / f"{room}.html"].ids

    @pytest.mark.parametrize("name", EQUATIONS)
    def test_the_reference_has_every_equation(self, name, site, pages):
        full = f"fsrl_ext.functional.{name}"
        module = importlib.import_module(full)
        own = [x for x, y in vars(module).items() if getattr(y, "__module__", None) == full and x[0] != "_"]
        names = {f"{full}.{x}" for x in getattr(module, "__all__", own)}
        assert names
        assert names <= pages[site / "api" / "functional.html"].ids


class TestNotebooks:
    """The pages of `docs/notebooks`, which are executed as the site is built."""

    @pytest.mark.parametrize(("name", "figures"), [("cvpo_step_by_step.md", 4), ("adaptation.md", 3)])
    def test_outputs_follow_the_code_on_the_page_and_in_the_notebook(self, name, figures, site, texts):
        page = site / "notebooks" / Path(name).with_suffix(".html")
        assert texts[page].count("data:image/png;base64,") == figures
        notebook = json.loads(page.with_suffix(".ipynb").read_text())
        assert notebook["nbformat"] == 4
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        source = (ROOT / "docs" / "notebooks" / name).read_text()
        assert [cell["source"] + "\n" for cell in code] == [block for _, block in python_blocks(source)]
        outputs = [output for cell in code for output in cell["outputs"]]
        assert sum(output["output_type"] == "display_data" for output in outputs) == figures
        printed = [line for x in outputs if "text" in x for line in x["text"].splitlines() if line.strip()]
        assert printed
        assert all(html.escape(line, quote=False) in texts[page] for line in printed)

    def test_the_constraint_of_the_e_step_binds(self, site, texts):
        assert "active after" in texts[site / "notebooks" / "cvpo_step_by_step.html"]

    def test_the_adapted_policy_earns_more_within_its_limit(self, site, texts):
        text = texts[site / "notebooks" / "adaptation.html"]
        (before, _), (after, cost) = (
            map(float, re.search(rf"{when}: +return ([\d.]+), cost ([\d.]+)", text).groups())
            for when in ("before", "after")
        )
        assert after > before + 1
        assert cost <= 25


def test_the_build_fails_on_what_a_reader_would_miss(tmp_path):
    (tmp_path / "undocumented.py").write_text(
        '"""A module."""\n\nclass Known:\n    """A class."""\n\n    def bare(self):\n        return 1\n'
    )
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path[:0] = [{str(tmp_path)!r}, {str(ROOT / 'docs' / '_extensions')!r}]\n"
        'extensions = ["myst_parser", "sphinx.ext.autodoc", "mathml", "documented", "notebooks"]\n'
        'import documented\ndocumented.PACKAGE = "undocumented"\n'
        'myst_enable_extensions = ["dollarmath"]\n'
        'autodoc_default_options = {"members": True, "undoc-members": True}\n'
    )
    (tmp_path / "index.md").write_text(
        "# Start\n\n[gone](gone.md) $\\nonsense$\n\n```{eval-rst}\n.. automodule:: undocumented\n```\n"
    )
    (tmp_path / "lost.md").write_text("# Lost\n")
    (tmp_path / "notebooks").mkdir()
    text = "---\norphan: true\n---\n\n# Broken\n\n```python\nprint(1)\nunknown\n```\n"
    (tmp_path / "notebooks" / "broken.md").write_text(text)
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(lines) == 5
    for words in (
        "the method undocumented.Known.bare has no docstring",
        "cross-reference target not found: 'gone.md'",
        "document isn't included in any toctree",
        "the formula \\nonsense cannot be read",
        "a block of the notebook fails: Traceback",
    ):
        assert words in done.stderr


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(browser, site):
    """Opens pages without a network; the site may not complain, nor ask for anything but its own files."""
    complaints, contexts = [], []

    def listen(page):
        page.on("console", lambda message: complaints.append(message.text) if message.type in BAD else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.on("request", lambda x: None if x.url.startswith(site.as_uri()) else complaints.append(x.url))

    def opened(name="index.html", query="", **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        context.set_default_timeout(30_000)
        context.set_offline(True)
        contexts.append(context)
        page = context.new_page()
        listen(page)
        page.goto((site / name).as_uri() + query)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def brightness(page):
    """The sum of red, green and blue of the page's background, at most 765."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(x) for x in colour.removeprefix("rgb(").removesuffix(")").split(","))


class TestInABrowser:
    def test_navigation(self, opened):
        page = opened()
        assert page.locator("h1").inner_text().startswith("Documentation")
        page.locator(".sidebar-tree").get_by_role("link", name="Concepts", exact=True).click()
        page.wait_for_url("**/concepts.html")
        assert page.locator("h1").inner_text().startswith("Concepts")
        page.get_by_role("link", name="the rule", exact=True).click()
        page.wait_for_url("**/evaluation.html")

    @pytest.mark.parametrize(
        ("words", "title", "goal"),
        [
            ("CVPOPolicy", "CVPOPolicy", "api/policy.html"),
            ("fence mass", "Families", "meta_tasks.html"),
        ],
    )
    def test_the_search_finds_a_page(self, words, title, goal, opened):
        page = opened()
        page.locator(".sidebar-search").fill(words)
        page.locator(".sidebar-search").press("Enter")
        hits = page.locator("#search-results li a")
        hits.first.wait_for()
        hits.filter(has_text=title).first.click()
        page.wait_for_url(f"**/{goal}*")

    def test_the_search_of_nonsense_finds_nothing(self, opened):
        page = opened("search.html", query="?q=qqqzzz")
        page.get_by_text("did not match any documents").wait_for()

    def test_light_and_dark(self, opened):
        page = opened(color_scheme="light")
        assert brightness(page) > 700
        page.emulate_media(color_scheme="dark")
        assert brightness(page) < 150
        for _ in range(2):  # from the system's choice to that of the reader
            page.locator(".theme-toggle:visible").first.click()
        assert (brightness(page) > 700) == (page.locator("body").get_attribute("data-theme") == "light")

    def test_no_page_scrolls_sideways_on_a_phone(self, opened, site, pages):
        page = opened(viewport=PHONE)
        wide = []
        listing = site / "repository" / "benchmarks" / "results" / "index.html"
        for path in [listing, *(x for x in pages if "repository" not in x.relative_to(site).parts)]:
            page.goto(path.as_uri())
            width = page.evaluate("document.documentElement.scrollWidth")
            if width > PHONE["width"]:
                wide.append((path.relative_to(site).as_posix(), width))
        assert wide == []

    def test_the_menu_of_a_phone(self, opened):
        page = opened(viewport=PHONE)
        link = page.locator(".sidebar-tree").get_by_role("link", name="Concepts", exact=True)
        assert not link.is_visible() or link.bounding_box()["x"] < 0
        page.locator("label[for='__navigation']:visible").first.click()
        page.wait_for_timeout(500)
        assert link.bounding_box()["x"] >= 0
