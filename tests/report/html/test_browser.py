"""The page in a real browser: Chromium without a window, any that is installed; skipped where there is none."""

import re
import shutil
import subprocess

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from fedimb.report.html.page import page

from .studies import plain, result, setting, study

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
PROBE = """<script>addEventListener("load", function () {
  var root = document.documentElement, wide = 0;
  document.querySelectorAll("svg.plot, table, pre, img, dl").forEach(function (one) {
    var box = one.closest(".box");
    if (!box && one.getBoundingClientRect().right > innerWidth + 1) wide++;
  });
  root.setAttribute("data-found", [root.scrollWidth - innerWidth, wide, document.querySelectorAll("svg.plot").length,
    performance.getEntriesByType("resource").filter(function (one) { return !/^data:/.test(one.name); }).length,
    innerWidth].join(" "));
});</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: the page is not looked at in a browser"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    where = tmp_path_factory.mktemp("browser")
    (where / "report.html").write_text(page(plain()))
    return where / "report.html"


def browser(file, *words):
    """Open the page with a new profile; returns what came out and what the console said."""
    profile = file.parent / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", *words, file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=file.parent)
    assert done.returncode == 0, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


@pytest.mark.parametrize("width", [1280, 500])  # without a device to imitate, a window is 500 wide at least
def test_nothing_sticks_out_fails_or_is_fetched(file, width):
    probed = file.with_name("probed.html")
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", file.read_text())
    probed.write_text(text.replace("</body>", f"{PROBE}</body>"))
    found, console = browser(probed, f"--window-size={width},900", "--dump-dom")
    over, wide, pictures, fetched, inside = map(int, re.search(r'data-found="([^"]*)"', found)[1].split())
    assert inside == width
    assert over <= 0
    assert wide == 0
    assert pictures == 6
    assert fetched == 0
    assert console == []


def test_its_own_policy_stops_nothing_of_it(file):
    _, console = browser(file, "--dump-dom")
    assert console == []


def test_the_policy_stops_what_is_slipped_in(file):
    slipped = file.with_name("slipped.html")
    slipped.write_text(file.read_text().replace("</body>", "<script>document.title = 'slipped'</script></body>"))
    found, console = browser(slipped, "--dump-dom")
    assert "<title>slipped" not in found
    assert any("Content Security Policy" in line for line in console)


@pytest.mark.parametrize("width", [1280, 500])
def test_it_is_drawn(file, width):
    from matplotlib.image import imread

    browser(file, f"--window-size={width},2400", "--screenshot=shot.png")
    picture = imread(file.with_name("shot.png"))
    assert picture.shape[:2] == (2400, width)
    assert 0.7 < (picture[..., :3].min(axis=2) > 0.99).mean() < 0.99  # dark words and pictures on white


def test_it_is_printed_with_what_was_folded_away(file):
    places = [setting("easy"), setting("hard"), setting("hardest")]
    rows = [result("fedavg", s, (20, 15, 2), setting=place.name) for place in places for s in range(3)]
    text = page(study(rows, places))
    folded = text.replace(" open>", ">")
    assert folded != text
    pages = []
    for name, one in (
        ("open", re.sub(r"<details( class=\"setting\")?>", r"<details\1 open>", text)),
        ("closed", folded),
    ):
        here = file.with_name(f"{name}.html")
        here.write_text(one)
        browser(here, "--no-pdf-header-footer", f"--print-to-pdf={name}.pdf")
        pages.append(len(re.findall(rb"/Type\s*/Page\b", here.with_suffix(".pdf").read_bytes())))
    assert pages[0] == pages[1] > 4
