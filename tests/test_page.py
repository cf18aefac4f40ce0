"""The page of a story in a real browser: offline, both themes and languages, keyboard, and without script."""

import itertools
import os
import re
import shutil
from pathlib import Path

import pytest

import chainrule as cr
from chainrule import nn
from chainrule.cli import main
from chainrule.explain import explain
from chainrule.explain.layout import Box, Link, draw

CHROMIUM = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
SEED = ("sigmoid(w*x)", "w=0.8", "x=0.5", "--loss", "bce", "--y", "1")
HOSTILE = "<img src=x onerror=alert(1)>\"'&</script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium found; set CHROMIUM to one")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("쪽 folder")


@pytest.fixture(scope="module")
def seed_page(folder):
    path = folder / "seed.html"
    assert main(["explain", *SEED, "--html", str(path), "--lang", "en"]) == 0
    return path


@pytest.fixture(scope="module")
def layers_page(folder):
    cr.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    xb = cr.randn((16, 4))
    loss = cr.functional.cross_entropy(model(xb), cr.tensor([0, 1, 2, 0] * 4))
    path = folder / "layers.html"
    explain(loss, language="en").save(path)
    return path


class Opened:
    """A page with everything that it asked for and complained about."""

    def __init__(self, browser, path, **options):
        self.context = browser.new_context(viewport={"width": 1500, "height": 900}, **options)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda one: self.requests.append(one.url))
        self.page.on("console", lambda one: self.complaints.append(one.text))
        self.page.on("pageerror", lambda one: self.complaints.append(str(one)))
        self.page.goto(Path(path).as_uri())

    def narration(self):
        return self.page.inner_text("#cr-narration")

    def colour(self, selector, what="color"):
        return self.page.eval_on_selector(selector, f"one => getComputedStyle(one).{what}")


@pytest.fixture
def opened(browser):
    contexts = []

    def open_page(path, **options):
        one = Opened(browser, path, **options)
        contexts.append(one.context)
        return one

    yield open_page
    for context in contexts:
        context.close()


def test_it_opens_from_disk_without_network_or_complaint(opened, seed_page):
    shown = opened(seed_page)
    assert shown.requests == [Path(seed_page).as_uri()] and shown.complaints == []
    assert "sigmoid" in shown.page.title()
    assert shown.page.locator(".cr-node").count() == 6
    assert shown.page.locator("svg path").count() == 5 + 4  # y brings no gradient back


def test_the_policy_allows_only_the_pages_own_style_and_script(seed_page):
    text = Path(seed_page).read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src &#x27;none&#x27;" in policy and "unsafe" not in policy
    assert not re.search(r"(src|href)=", text)
    assert not re.search(r"\son\w+=|style=", text)


def test_the_policy_stops_injected_script(opened, seed_page, folder):
    changed = folder / "injected.html"
    text = Path(seed_page).read_text(encoding="utf-8")
    changed.write_text(
        text.replace("</main>", "<script>document.title = 'taken'</script></main>"), encoding="utf-8"
    )
    shown = opened(changed)
    assert shown.page.title() != "taken" and any("Content Security Policy" in one for one in shown.complaints)


def test_values_and_gradients_stand_on_the_same_edge(opened, seed_page):
    shown = opened(seed_page)
    for phase, sign, number in (("forward", "▶", "0.4"), ("backward", "◀∂", "-0.401312")):
        labels = shown.page.eval_on_selector_all(
            f"g.cr-{phase} > text", "all => all.map(one => one.textContent)"
        )
        assert f"{sign} {number}" in labels
    assert shown.colour("g.cr-backward path", "strokeDasharray") != "none"
    assert shown.colour("g.cr-forward path", "strokeDasharray") == "none"


def test_arrow_keys_step_forward_then_backward_with_narration(opened, seed_page):
    shown = opened(seed_page)
    assert shown.page.get_attribute("#cr-narration", "aria-live") == "polite"
    said = []
    for _ in range(11):
        shown.page.keyboard.press("ArrowRight")
        said.append(shown.narration())
    assert said[0] == "▶ w is given: 0.8." and said[2] == "▶ z = w·x = 0.4."
    assert said[6].startswith("◀∂ L = binary_cross_entropy(ŷ, y)") and "∂L/∂L = 1" in said[6]
    assert "→ w: ∂L/∂z × ∂z/∂w = (-0.401312) × 0.5 = -0.200656" in said[8]
    assert shown.page.inner_text("#cr-count") == "11 / 11"
    shown.page.keyboard.press("ArrowLeft")
    assert shown.narration() == said[9] and shown.page.url.endswith("#step=10")
    shown.page.keyboard.press("Home")
    assert shown.narration() == said[0]
    assert shown.page.locator(".cr-graph > .cr-later").count() > 8
    shown.page.keyboard.press("Escape")
    assert shown.page.locator(".cr-later").count() == 0


def test_a_link_to_a_step_opens_there(opened, seed_page):
    shown = opened(seed_page)
    shown.page.goto(Path(seed_page).as_uri() + "#step=4")
    shown.page.reload()
    assert shown.narration().startswith("▶ ŷ = sigmoid(z)")


def test_nodes_have_names_and_focus(opened, seed_page):
    shown = opened(seed_page)
    labels = shown.page.eval_on_selector_all(
        ".cr-node", "all => all.map(one => one.getAttribute('aria-label'))"
    )
    assert "z = w·x: value 0.4, gradient of L: -0.401312" in labels
    assert "y: value 1, no gradient" in labels
    node = shown.page.locator(".cr-node").nth(3)
    node.focus()
    assert shown.page.evaluate("document.activeElement.classList.contains('cr-node')")
    shown.page.keyboard.press("Enter")
    assert shown.narration().startswith("▶ ŷ")
    for button in shown.page.locator("button").all():
        assert button.bounding_box()["height"] >= 24 and (
            button.get_attribute("aria-label") or button.inner_text()
        )


def test_korean_and_back(opened, seed_page):
    shown = opened(seed_page)
    shown.page.keyboard.press("ArrowRight")
    shown.page.click("#cr-language")
    assert shown.narration() == "▶ w가 주어졌습니다: 0.8."
    assert shown.page.evaluate("document.documentElement.lang") == "ko"
    assert "국소적 미분" in shown.page.inner_text(
        "thead"
    ) and "local derivative" not in shown.page.inner_text("thead")
    assert "경사 하강법" in shown.page.inner_text("main") and "Update by" not in shown.page.inner_text("main")
    labels = shown.page.eval_on_selector_all(
        ".cr-node", "all => all.map(one => one.getAttribute('aria-label'))"
    )
    assert "z = w·x: 값 0.4, L의 기울기 -0.401312" in labels
    shown.page.click("#cr-language")
    assert shown.narration() == "▶ w is given: 0.8."


LIGHT = {"forward": "rgb(26, 127, 55)", "backward": "rgb(207, 34, 46)"}
DARK = {"forward": "rgb(63, 185, 80)", "backward": "rgb(255, 123, 114)"}
BLIND_LIGHT = {"forward": "rgb(0, 114, 178)", "backward": "rgb(179, 74, 0)"}
BLIND_DARK = {"forward": "rgb(86, 180, 233)", "backward": "rgb(230, 159, 0)"}


def test_themes_and_colours_for_the_colour_blind(opened, seed_page):
    for scheme, plain, blind, other in (
        ("light", LIGHT, BLIND_LIGHT, DARK),
        ("dark", DARK, BLIND_DARK, LIGHT),
    ):
        shown = opened(seed_page, color_scheme=scheme)

        def colours(shown=shown):
            return {name: shown.colour(f"td.cr-{name}") for name in ("forward", "backward")}

        assert colours() == plain
        shown.page.click("#cr-colour")
        assert colours() == blind
        shown.page.click("#cr-colour")
        shown.page.click("#cr-theme")
        assert colours() == other


def luminance(colour):
    parts = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("blind", [False, True])
def test_text_has_enough_contrast(opened, seed_page, scheme, blind):
    shown = opened(seed_page, color_scheme=scheme)
    if blind:
        shown.page.click("#cr-colour")
    behind = luminance(shown.colour(".cr-story", "backgroundColor"))
    box = luminance(shown.colour(".cr-graph rect", "fill"))
    for selector, what in (
        ("td.cr-forward", "color"), ("td.cr-backward", "color"), ("h1", "color"),
        (".cr-graph .cr-title", "fill"), (".cr-graph .cr-local", "fill"), (".cr-graph text.cr-backward", "fill"),
    ):  # fmt: skip
        front = luminance(shown.colour(selector, what))
        for back in (behind, box):
            high, low = max(front, back), min(front, back)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (selector, scheme, blind)


def test_everything_is_there_without_script(opened, seed_page):
    shown = opened(seed_page, java_script_enabled=False)
    assert shown.page.locator("svg .cr-node").count() == 6 and shown.page.locator("tbody tr").count() == 6
    assert not shown.page.locator("#cr-next").is_visible()
    details = shown.page.locator("details").first
    details.locator("summary").click()
    assert "Surprise at the label" in details.inner_text()


def overlaps(boxes):
    return [
        (a["text"], b["text"])
        for k, a in enumerate(boxes)
        for b in boxes[k + 1 :]
        if a["left"] < b["right"] - 1
        and b["left"] < a["right"] - 1
        and a["top"] < b["bottom"] - 3
        and b["top"] < a["bottom"] - 3
    ]


RECTANGLES = """all => all.map(one => { const r = one.getBoundingClientRect();
  return {left: r.left, right: r.right, top: r.top, bottom: r.bottom, text: one.textContent}; })"""


@pytest.mark.parametrize("which", ["seed", "layers", "shared"])
def test_nothing_overlaps_or_leaves_its_box(opened, seed_page, layers_page, folder, which):
    path = {"seed": seed_page, "layers": layers_page}.get(which, folder / "shared.html")
    if which == "shared":
        formula = "a = w*x; b = tanh(a + c); d = a*b + sigmoid(b); e = d*a - b/(1 + d*d); log(1 + e*e) + a"
        assert main(["explain", formula, "w=1.5", "x=-0.7", "c=0.3", "--html", str(path)]) == 0
    shown = opened(path)
    boxes = shown.page.eval_on_selector_all(".cr-node rect", RECTANGLES)
    texts = shown.page.eval_on_selector_all(".cr-graph text", RECTANGLES)
    frame = shown.page.eval_on_selector_all(".cr-graph", RECTANGLES)[0]
    assert len(boxes) > 5 and overlaps(boxes) == [] and overlaps(texts) == []
    for one in texts:
        assert frame["left"] <= one["left"] and one["right"] <= frame["right"], one
        assert frame["top"] <= one["top"] and one["bottom"] <= frame["bottom"], one
    inside = shown.page.evaluate(
        """() => [...document.querySelectorAll('.cr-node')].every(node => {
          const r = node.querySelector('rect').getBoundingClientRect();
          return [...node.querySelectorAll('text')].every(text => { const t = text.getBoundingClientRect();
            return r.left <= t.left && t.right <= r.right && r.top <= t.top + 2 && t.bottom <= r.bottom + 2; }); })"""
    )
    assert inside


def test_a_network_is_folded_by_layers(opened, layers_page):
    shown = opened(layers_page)
    titles = shown.page.eval_on_selector_all(".cr-node .cr-title", "all => all.map(one => one.textContent)")
    assert [one.partition(" = ")[2].partition("(")[0] for one in titles if " = " in one] == [
        "linear", "relu", "linear", "tanh", "linear", "cross_entropy",
    ]  # fmt: skip
    assert "z1 = linear(xb, 0.weight, 0.bias)" in titles
    assert shown.complaints == []


def test_names_cannot_break_out_of_the_page(opened, folder):
    w = cr.tensor(0.5, requires_grad=True)
    story = explain(w * 3.0, names={HOSTILE: w})
    path = folder / "hostile.html"
    story.save(path)
    shown = opened(path)
    shown.page.keyboard.press("ArrowRight")
    assert HOSTILE in shown.narration()
    assert shown.page.locator("img").count() == 0 and shown.complaints == []
    assert shown.page.locator("script").count() == 2
    (folder / "notebook.html").write_text(
        "<!DOCTYPE html><meta charset='utf-8'>" + story._repr_html_(), encoding="utf-8"
    )
    inside = opened(folder / "notebook.html")
    assert inside.page.locator("img, script").count() == 0 and inside.complaints == []


def test_a_notebook_shows_one_language(opened, folder):
    w = cr.tensor(0.5, requires_grad=True)
    path = folder / "cell.html"
    for language, present, absent in (
        ("en", "local derivative", "국소적"),
        ("ko", "국소적 미분", "local derivative"),
    ):
        shown = explain(cr.tanh(w), language=language)._repr_html_()
        path.write_text(f"<!DOCTYPE html><html lang='en'><meta charset='utf-8'>{shown}", encoding="utf-8")
        text = opened(path).page.inner_text("body")
        assert present in text and absent not in text


# ------------------------------------------------------------------------------------------------ layout


def test_the_layout_is_deterministic_ordered_and_free_of_overlaps():
    sizes = [(60, 40), (80, 60), (60, 40), (100, 80), (60, 40), (70, 50), (90, 60), (60, 30)]
    links = [(0, 3), (1, 3), (2, 5), (3, 5), (3, 6), (5, 6), (4, 7), (6, 7), (0, 7)]

    def made():
        ports = [[one for one in links if one[1] == k] for k in range(len(sizes))]
        boxes = [Box(w, h, [10.0 * j for j in range(len(ports[k]))]) for k, (w, h) in enumerate(sizes)]
        given = [Link(a, b, ports[b].index((a, b))) for a, b in links]
        return draw(boxes, given, 100, 20, 10), given

    (first, given), (second, _) = made(), made()
    assert first == second
    for a in first.boxes:
        for b in first.boxes:
            if a is not b and a.x < b.x + b.width and b.x < a.x + a.width:
                assert abs(a.y - b.y) >= (a.height + b.height) / 2 + 20 - 1e-6
    for link, way in zip(given, first.ways):
        source, target = first.boxes[link.source], first.boxes[link.target]
        assert way[0] == (source.x + source.width, source.y)
        assert way[-1] == (target.x, target.y + target.ports[link.port])
        assert all(x < after for (x, _), (after, _) in itertools.pairwise(way))
        for k, other in enumerate(first.boxes):
            if k in (link.source, link.target):
                continue
            for (x0, y0), (x1, y1) in itertools.pairwise(way):
                crosses = (
                    x0 < other.x + other.width
                    and other.x < x1
                    and abs(y1 - other.y) < other.height / 2
                    and y0 == y1
                )
                assert not crosses
