"""The page of a study in a real headless browser: figures, filters, hover, themes, and no request."""

import pytest
from toys.browser import chromium
from toys.studies import write_run, write_small

from fsrl_ext.report.page import study_page

EVIL = '</script><script>window.bad = 1</script><img src=x onerror="window.bad = 1">'

STEPS = (250, 500, 750, 1000)


def write_study(folder):
    """Write runs of three rows on two tasks, with returns and costs that tests know."""
    for task, start in (("Alpha-v0", 100.0), ("Beta-v0", 10.0)):
        for policy, shift, cost in (("cvpo", 0.0, 4.0), ("sac_lag", 50.0, 900.0)):
            for seed in range(3):
                value = start + shift + seed
                write_run(
                    folder / f"{task}-{policy}-{seed}",
                    task=task,
                    policy=policy,
                    seed=seed,
                    command=EVIL,
                    best=(value, (cost,)),
                    rows=[(step, value, cost) for step in STEPS],
                    logged={
                        "constraint/multiplier": (0.5, 1.0, 1.5, 2.0),
                        "constraint/episode_cost": (cost, cost, cost, cost),
                        "estep/active": (1.0, 0.5, 0.5, 0.0),
                        "estep/slack": (0.0, 0.5, 0.5, 1.0),
                    },
                    multiplier_max=2.0,
                )
    write_run(folder / ("unfinished" * 8), status="interrupted")
    write_small(folder / "Alpha-v0" / "cpo" / EVIL.replace("/", "_") / "seed0.json", config=small("Alpha-v0"))


def small(task):
    """The config of a result file on a task."""
    return {
        "policy": "cpo", "task": task, "cost_limit": [10.0], "steps": 1000, "seed": 0,
        "policy_config": {"gamma": 0.99}, "training": {},
    }  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder / "runs")
    study_page([folder / "runs"], folder / "page.html", command=EVIL)
    return folder / "page.html"


class Opened:
    """Opens the page without a network, and notes what it complains about and asks for."""

    def __init__(self, browser, file):
        self.browser, self.file = browser, file
        self.complaints, self.requests, self.contexts = [], [], []

    def __call__(self, **settings):
        context = self.browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        context.set_default_timeout(15_000)
        context.set_offline(True)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.file.as_uri())
        return page

    def check(self):
        """Check that there was no error and no request but for the file itself."""
        assert self.complaints == []
        asked = [x for x in self.requests if not x.startswith(("data:", "blob:"))]
        assert asked == [self.file.as_uri()] * len(self.contexts)


@pytest.fixture
def opened(browser, file):
    opened = Opened(browser, file)
    yield opened
    for context in opened.contexts:
        context.close()
    opened.check()


@pytest.fixture(scope="module")
def shared(browser, file):
    opened = Opened(browser, file)
    return opened, opened()


@pytest.fixture
def page(shared):
    """One page for all tests, since a browser reads it for seconds; each finds it as it was at first."""
    opened, page = shared
    yield page
    if page.locator('[aria-pressed="false"]').count():
        page.locator("#show-all").click()
    for name, value in (("episodes", "training"), ("which", "best")):
        if page.locator(f"#{name}").input_value() != value:
            page.locator(f"#{name}").select_option(value)
    for name in ("seeds", "linear"):
        page.locator(f"#{name}").uncheck()
    page.mouse.move(0, 0)
    opened.check()


def show(place):
    """Scroll to a figure, below the filters at the top, and wait until it is drawn."""
    place.evaluate("(x) => x.scrollIntoView({ block: 'center' })")
    place.locator(".main-svg").first.wait_for(state="attached")


def draw_all(page):
    """Open every part, and scroll until everything is drawn."""
    page.evaluate("document.querySelectorAll('main details').forEach((x) => { x.open = true; })")
    for place in page.locator(".plot").all():
        show(place)


CURVES = '.plot[data-kind="curves"]'
POINTS = '.plot[data-kind="points"]'


def traces(page, selector, number=0):
    """The traces of a figure as they are drawn: name and what they stand for."""
    return page.evaluate(
        "([selector, number]) => document.querySelectorAll(selector)[number].data"
        ".map((x) => [x.name ?? '', x.meta ?? ''])",
        [selector, number],
    )


def names(page, selector, number=0):
    return sorted({name for name, meta in traces(page, selector, number) if meta == "mean"})


def visible_rows(page):
    """Task and row of the lines of the first table that are shown."""
    lines = page.locator("#results table").first.locator("tbody tr:visible")
    return [tuple(cells.split("\t")[:2]) for cells in lines.all_inner_texts()]


def chip(page, text):
    return page.locator(".filter button", has_text=text).first


LABEL = f"cpo {EVIL.replace('/', '_')}"


class TestFigures:
    def test_every_figure_is_drawn(self, page):
        draw_all(page)
        assert page.locator(CURVES).count() == page.locator(POINTS).count() == 2
        assert page.locator('.plot[data-kind="diagnostic"]').count() == 4 * 3
        for place in page.locator(".plot").all():
            assert place.locator(".scatterlayer .trace").count() > 0
            assert place.bounding_box()["height"] > 150
            assert place.locator(".modebar-btn").count() == 4  # and none that sends data to a server
        # The axis of the cost of 900 is logarithmic above 20, so that 4 and the limit of 10 are seen, too.
        ticks = page.locator(f"{CURVES} .ytick, {CURVES} .y2tick").all_text_contents()
        assert {"0", "20", "1,000"} <= set(ticks)

    def test_seeds_are_shown_on_demand_and_selections_beside_training(self, page):
        show(page.locator(CURVES).first)
        assert not [1 for _, meta in traces(page, CURVES) if meta == "seed"]
        page.locator("#seeds").check()
        drawn = [name for name, meta in traces(page, CURVES) if meta == "seed"]
        assert len(drawn) == 2 * (3 + 3 + 1)  # of return and cost
        assert "sac_lag, seed 2" in drawn
        page.locator("#seeds").uncheck()
        page.locator("#episodes").select_option("both")
        assert "cvpo, selections" in names(page, CURVES)
        page.locator("#linear").check()
        highest = page.evaluate(f"document.querySelector('{CURVES}').layout.yaxis2.range[1]")
        assert highest > 900

    def test_last_policies(self, page):
        show(page.locator(POINTS).first)
        returns = f"document.querySelector('{POINTS}').data[0].y[0]"
        page.locator("#which").select_option("last")
        assert page.evaluate(returns) == 8
        page.locator("#which").select_option("best")
        assert page.evaluate(returns) == 30


class TestFilters:
    def test_by_policy(self, page):
        show(page.locator(CURVES).first)
        both = ["cvpo", "sac_lag"]
        assert names(page, CURVES)[-2:] == both
        assert len(visible_rows(page)) == 5
        chip(page, "sac_lag").click()
        assert chip(page, "sac_lag").get_attribute("aria-pressed") == "false"
        assert "sac_lag" not in names(page, CURVES)
        assert ("Alpha-v0", "sac_lag") not in visible_rows(page)
        assert len(visible_rows(page)) == 3
        assert page.locator('#diagnostics h4:visible:has-text("sac_lag")').count() == 0
        page.locator("#show-all").click()
        assert names(page, CURVES)[-2:] == both
        assert len(visible_rows(page)) == 5

    def test_by_task_and_a_double_click_shows_one_alone(self, page):
        show(page.locator(CURVES).first)
        chip(page, "Beta-v0").dblclick()
        assert page.locator(f"{CURVES}:visible").count() == 1
        assert {task for task, _ in visible_rows(page)} == {"Beta-v0"}
        chip(page, "Alpha-v0").click()
        chip(page, "Beta-v0").click()
        assert page.locator(f"{CURVES}:visible").count() == 1
        assert {task for task, _ in visible_rows(page)} == {"Alpha-v0"}
        assert names(page, CURVES) == sorted(["cvpo", "sac_lag", plain(LABEL)])


def plain(text):
    """The text as it is given to Plotly, which reads some markup in names."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class TestHover:
    def test_over_a_curve(self, page):
        place = page.locator(CURVES).nth(1)
        show(place)
        box = place.locator(".nsewdrag").first.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        label = place.locator(".hoverlayer .legend")
        label.wait_for(state="attached")
        text = " ".join(" ".join(label.all_text_contents()).split())
        # The mean of 10, 11 and 12 with its Student t interval.
        assert "cvpo : return 11 [8.52, 13.5]" in text
        assert "sac_lag : return 61 [58.5, 63.5]" in text

    def test_over_a_mark_with_a_name_that_looks_like_markup(self, page):
        place = page.locator(POINTS).first
        show(place)
        box = place.locator(".scatterlayer .trace").first.locator(".point").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        label = place.locator(".hoverlayer .hovertext")
        label.wait_for(state="attached")
        text = label.text_content()
        assert LABEL in text
        assert "seed 0: return 30, cost 4, feasible" in text


class TestReading:
    def test_no_text_of_a_run_becomes_markup(self, page):
        draw_all(page)
        assert page.evaluate("window.bad") is None
        assert page.locator("img").count() == 0
        assert chip(page, "cpo").inner_text() == LABEL
        assert EVIL in page.locator("footer").inner_text()
        assert EVIL in page.locator(".commands td").all_inner_texts()

    def test_a_narrow_screen_shows_everything_without_scrolling_aside(self, opened):
        page = opened(viewport={"width": 390, "height": 844})
        assert page.locator(".filter[open]").count() == 0
        draw_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        for place in page.locator(".plot").all():
            assert place.bounding_box()["width"] > 300
        assert page.locator("#curves .legend").is_visible()

    def test_dark_and_light(self, opened):
        page = opened(color_scheme="dark")
        show(page.locator(CURVES).first)
        traces(page, CURVES)
        brightness = "(x) => x.match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
        back = "getComputedStyle(document.body).backgroundColor"
        text = f"getComputedStyle(document.querySelector('{CURVES} .ytitle')).fill"
        assert page.evaluate(f"({brightness})({back})") < 150
        assert page.evaluate(f"({brightness})({text})") > 600
        page.emulate_media(color_scheme="light")
        page.wait_for_timeout(300)
        assert page.evaluate(f"({brightness})({back})") > 700
        assert page.evaluate(f"({brightness})({text})") < 200

    def test_without_javascript_the_tables_are_there(self, opened):
        page = opened(java_script_enabled=False)
        text = page.locator("main").inner_text()
        assert "The figures need JavaScript; the tables do not." in text
        assert "cvpo has the highest return within the limit" in text
        assert "best return" in page.locator("#results table").first.inner_text()
        assert page.locator("#results table").first.locator("tbody tr").count() == 5
        assert not page.locator("#show-all").is_visible()
