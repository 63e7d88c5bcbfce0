"""The page of a run in a browser: no errors, nothing overflows at the width of a desk and of a
phone, images are there, tables sort and filter, estimators can be hidden.
"""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from sketchvar.analysis.report.page import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
DATA = Path(__file__).parents[2] / "data"
WIDTHS = (1280, 390)
CATCH = "<script>window.errors = []; onerror = said => { errors.push(String(said)) }</script>"
CHECK = """
function look(frame) {
  const page = frame.contentDocument, root = page.documentElement;
  const table = page.querySelector("table"), svgs = [...page.querySelectorAll("figure svg")];
  const button = table.querySelectorAll("th button")[3], at = button.closest("th").cellIndex;
  const read = () => [...table.querySelectorAll("tbody.rows tr")]
    .filter(row => !row.hidden).map(row => parseFloat(row.cells[at].textContent));
  button.click();
  const up = read();
  button.click();
  const down = read(), search = page.querySelector("input[type=search]");
  search.value = table.querySelector("tbody.rows td").textContent;
  search.dispatchEvent(new Event("input"));
  const found = read().length;
  const box = page.querySelector("nav input"), name = box.parentElement.textContent.trim();
  box.click();
  const own = [...page.querySelectorAll("[data-of]")].filter(each => each.dataset.of === name);
  return {errors: frame.contentWindow.errors, over: root.scrollWidth - root.clientWidth,
    images: svgs.map(each => each.getBoundingClientRect().width),
    up, down, found, hidden: own.filter(each => each.style.display === "none").length,
    own: own.length};
}
addEventListener("load", () => {
  const told = [...document.querySelectorAll("iframe")].map(look);
  document.getElementById("told").textContent = JSON.stringify(told);
});
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the browser finds at each width, in one start of it."""
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome is installed")
    page = report(DATA / "stdlib-lm").replace("<head>", f"<head>{CATCH}", 1)
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{escape(page)}"></iframe>'
        for width in WIDTHS
    )
    file = tmp_path_factory.mktemp("browser") / "both.html"
    file.write_text(f'{frames}<pre id="told"></pre><script>{CHECK}</script>')
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    words += ["--enable-logging=stderr", "--dump-dom", file.as_uri()]
    done = subprocess.run([BROWSER, *words], capture_output=True, text=True, timeout=240)
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout)
    assert told and told[1], done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    return dict(zip(WIDTHS, json.loads(unescape(told[1])), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_works(seen, width):
    found = seen[width]
    assert found["errors"] == [] and found["over"] <= 0
    assert len(found["images"]) == 5 and min(found["images"]) > 200
    assert found["up"] == sorted(found["up"]) and len(set(found["up"])) > 5
    assert found["down"] == sorted(found["up"], reverse=True)
    assert 1 <= found["found"] < len(found["up"])
    assert found["hidden"] == found["own"] > 0
