"""The report: its numbers are those of the tables, nothing in it runs that should not, and clicks show pairs."""

import base64
import csv
import html
import io
import json
import re

import numpy as np
import pytest
import torch
from browser import DRIVER, PROGRAM, dumped, opened
from noisy_images import random_images, systems
from PIL import Image

from repro.banks import Bank, Manifest
from repro.comparison import compare
from repro.errors import UserError
from repro.files import printable
from repro.metrics import PairMetric

N = 50
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"><b>&amp;'\u2028"
NAMES = ["edm", HOSTILE, "uvit"]
WRITTEN = [printable(name) for name in NAMES]

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt-get install chromium")
needs_driver = pytest.mark.skipif(
    None in (PROGRAM, DRIVER), reason="needs Chromium and its driver: apt-get install chromium chromium-driver"
)


class Identical(PairMetric):
    inputs = "images"

    def match(self, a, b):
        return (a == b).flatten(1).all(1)


@pytest.fixture(scope="module")
def images():
    return systems(3, N)


@pytest.fixture(scope="module")
def found(images):
    train = torch.cat([random_images(30, 3, 6, 6, seed=9), images[0][::3]])
    banks = [Bank.from_images(each, range(100, 100 + N), extra={"note": HOSTILE}) for each in images]
    metrics = ["FrechetDistance", Identical()]
    return compare(banks, "Pixels", [train, train, None], names=NAMES, metrics=metrics)


@pytest.fixture(scope="module")
def path(found, tmp_path_factory):
    return found.report(tmp_path_factory.mktemp("report") / "made" / "out.html")


def data_of(path):
    text = path.read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


@pytest.fixture(scope="module")
def data(path):
    return data_of(path)


def test_every_number_equals_the_csv(found, data, tmp_path):
    found.write(tmp_path, figures=False)

    def rows(name):
        with open(tmp_path / f"{name}.csv", newline="") as file:
            return list(csv.DictReader(file))

    scores = {score["name"]: score for score in data["scores"]}
    cells = {
        (score["name"], WRITTEN[cell["first"]], WRITTEN[cell["second"]]): cell
        for score in data["scores"]
        for cell in score["cells"]
    }
    pairs = rows("pairs")
    assert len(pairs) == len(cells) == 9
    for row in pairs:
        cell = cells[row["score"], row["first"], row["second"]]
        for key in (
            "count",
            "n",
            "rate",
            "low",
            "high",
            *(f"control_{key}" for key in ("count", "rate", "low", "high")),
        ):
            assert cell[key] == float(row[key])
    for row in rows("curves"):
        if row["score"] != "GL":
            cell = cells[row["score"], row["first"], row["second"]]
            place = scores[row["score"]]["thresholds"].index(float(row["threshold"]))
            assert (cell["curve"][place], cell["control_curve"][place]) == (
                int(row["count"]),
                int(row["control_count"]),
            )
        else:
            gl = data["gl"][WRITTEN.index(row["first"])]
            assert gl["curve"][gl["thresholds"].index(float(row["threshold"]))] == int(row["count"])
    tests = [test for score in data["scores"] for test in score["tests"]]
    for row, test in zip(rows("paired"), tests, strict=True):
        assert [WRITTEN[test[key]] for key in ("system", "first", "second")] == [
            row["system"],
            row["first"],
            row["second"],
        ]
        for key in ("difference", "low", "high", "only_first", "only_second", "p_value", "p_adjusted"):
            assert test[key] == float(row[key])
    for row, gl in zip(rows("gl"), data["gl"], strict=True):
        assert WRITTEN[gl["system"]] == row["system"]
        assert [gl[key] for key in ("count", "n", "rate", "low", "high")] == [
            float(row[key]) for key in ("count", "n", "rate", "low", "high")
        ]
    for row in rows("values"):
        value = data["values"][0]
        first = WRITTEN.index(row["first"])
        training = row["second"] == "training images"
        assert float(row["value"]) == (
            value["train"][first] if training else value["values"][first][WRITTEN.index(row["second"])]
        )


def tile(data, name, row):
    sheet = data["sheets"][name]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["uri"].partition(",")[2]))))
    line, column = divmod(sheet["rows"].index(row), sheet["columns"])
    top, left = line * sheet["cell"][0], column * sheet["cell"][1]
    return picture[top : top + data["tile"][0], left : left + data["tile"][1]].transpose(2, 0, 1)


def test_the_pairs_are_the_most_and_least_similar_and_the_images_those_of_the_banks(found, data, images):
    for score in data["scores"]:
        for cell in score["cells"]:
            outcome = found.scores[score["name"]].outcomes[cell["first"], cell["second"]]
            shown = [[pair["rows"][0] for pair in cell[end]] for end in ("most", "least")]
            assert len(shown[0]) == len(shown[1]) == 12
            assert not set(shown[0]) & set(shown[1])
            if outcome.values is not None:
                sign = -1 if score["sense"] == "<" else 1
                values = sorted(sign * outcome.values, reverse=True)
                assert [sign * outcome.values[row] for row in shown[0]] == values[:12]
                assert [sign * outcome.values[row] for row in shown[1]] == values[:-13:-1]
            for pair in cell["most"] + cell["least"]:
                assert pair["who"] == f"seed {100 + pair['rows'][0]}"
                assert pair["match"] == outcome.matches[pair["rows"][0]]
    cell = data["scores"][0]["cells"][0]
    for pair in cell["most"][:3] + cell["least"][:3]:
        for place, row in zip((0, 1), pair["rows"], strict=True):
            assert (tile(data, f"s{place}", row) == images[place][row].numpy()).all()


def test_nearest_training_images(found, data):
    assert [row["system"] for row in data["gl"]] == [0, 1]
    for row in data["gl"]:
        memorization = found.memorization[row["system"]]
        best = np.sort(memorization.similarity)[::-1]
        assert [pair["value"] for pair in row["most"]] == best[:12].astype(float).tolist()
        assert [pair["value"] for pair in row["least"]] == best[:-13:-1].astype(float).tolist()
        for pair in row["most"]:
            assert pair["rows"][1] == memorization.index[pair["rows"][0]]
        shown = tile(data, row["train"], row["most"][0]["rows"][1])
        assert (shown == found.train[row["system"]][row["most"][0]["rows"][1]].numpy()).all()
    assert len({row["train"] for row in data["gl"]}) == 1


def test_the_page_needs_no_network_and_names_stay_text(path):
    text = path.read_text()
    assert not re.findall(
        r"""(?:src|href)\s*=\s*["']?(?!#)[^"'\s>]""", text.split('<script type="application/json"')[0]
    )
    assert "url(" not in text.replace("data:", "")
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg|http-equiv", "", text)
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    assert policy.startswith("default-src 'none'; img-src data:")
    assert "unsafe" not in policy


def test_manifests_are_there(found, data):
    for bank, shown in zip(found.banks, data["banks"], strict=True):
        assert shown["manifest"] == bank.manifest.record()
        assert shown["facts"]["content"] == f"SHA-256 {bank.fingerprint}"


@needs_browser
def test_a_deep_link_shows_its_cell(path, found):
    shown = dumped(path, "#score=RP&cell=0,2&system=1&theme=dark")
    assert 'data-ready="1"' in shown
    assert 'data-theme="dark"' in shown
    detail = re.search(r'<article id="detail".*?</article>', shown, re.S)[0]
    row = next(row for row in found.table() if (row["score"], row["second"]) == ("RP", "uvit"))
    assert "edm and uvit" in detail
    assert f"{row['rate']:.3f}" in detail
    assert f"{row['low']:.3f}–{row['high']:.3f}, {row['count']} of {N}" in detail
    assert detail.count("<canvas") == 2 * 24
    assert detail.count('data-drawn="1"') == 2 * 24
    assert "<title>Comparison of 3 systems</title>" in shown
    assert re.search(r'<article id="nearest".*?<h3>&lt;/script&gt;&lt;img', shown, re.S)


@needs_driver
def test_clicks_and_keys(path, found):
    rates = {(row["score"], row["first"], row["second"]): row for row in found.table()}
    with opened(path) as page:
        page.wait("document.documentElement.dataset.ready")
        for i, j in ((0, 1), (0, 2), (1, 2)):
            page.click(f'[data-cell="{i},{j}"]')
            row = rates["RP", NAMES[i], NAMES[j]]
            assert page.text("#detail .rate") == f"{row['rate']:.3f}"
            assert page.run("return document.querySelector('#detail h3').textContent") == f"{NAMES[i]} and {NAMES[j]}"
            assert f"cell={i},{j}" in page.run("return location.hash")
            page.wait("document.querySelectorAll('#detail canvas:not([data-drawn])').length === 0")
        assert page.run("return document.querySelectorAll('#detail .pairs li').length") == 24
        page.hover('[data-cell="0,2"]')
        assert f"RP {rates['RP', 'edm', 'uvit']['rate']:.3f}" in page.text("#tip")
        page.press('[data-cell="0,1"]', "\ue014")
        assert page.run("return document.activeElement.dataset.cell") == "0,2"
        page.click("#scores button:nth-child(2)")
        assert page.text("#scores [aria-pressed=true]") == "MAE"
        page.click('[data-cell="0,1"]')
        assert page.text("#detail .rate") == f"{rates['MAE', 'edm', HOSTILE]['rate']:.3f}"
        page.click("#detail details .link")
        assert page.run("return location.hash").startswith("#score=MAE&cell=0,2")
        page.click('[data-system="1"]')
        gl = found.memorization[1]
        assert page.text("#nearest .rate") == f"{gl.rate:.3f}"
        page.wait("document.querySelectorAll('#nearest canvas[data-drawn]').length === 48")
        context = "document.querySelector('#nearest canvas').getContext('2d')"
        pixel = f"return [...{context}.getImageData(2, 3, 1, 1).data]"
        best = int(np.argsort(-gl.similarity, kind="stable")[0])
        assert page.run(pixel)[:3] == found.banks[1].images[best, :, 3, 2].tolist()
        page.click("#theme")
        assert page.run("return document.documentElement.dataset.theme") == "dark"
        page.click("#manifests details summary")
        assert page.run("return document.querySelector('#manifests pre').textContent.includes('</script>')")
        assert page.run("return document.title") == "Comparison of 3 systems"
        assert (
            page.run("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length")
            == 0
        )


def conditional(images, classes):
    labels = torch.arange(classes).repeat(len(images) // classes)
    each = {"num_classes": classes, "images_per_seed": classes}
    return Bank(
        images, Manifest(seeds=range(len(images) // classes), image_shape=images.shape[1:], labels=each), labels
    )


def test_conditional_and_mixed_reports(images, tmp_path):
    cond = [conditional(each, 2) for each in images[:2]]
    found = compare([cond[0], Bank.from_images(images[0][1::2]), cond[1]], "Pixels", names=list("xuy"))
    data = data_of(found.report(tmp_path / "mixed.html"))
    scores = {score["name"]: score for score in data["scores"]}
    cell = scores["RP"]["cells"][0]
    assert (cell["first"], cell["second"]) == (0, 2)
    assert [row["class"] for row in cell["classes"]] == [0, 1, "mean"]
    assert scores["RP"]["share"] == "share of noises and classes"
    for cell in scores["Between RP"]["cells"]:
        outcome = found.scores["Between RP"].outcomes[cell["first"], cell["second"]]
        of_u = outcome.first if cell["first"] == 1 else outcome.second
        for pair in cell["most"]:
            row_u, row_c = pair["rows"] if cell["first"] == 1 else pair["rows"][::-1]
            assert of_u.tolist().index(row_u) == row_c // 2
            assert (pair["who"], pair["of"]) == (f"seed {row_u}", f"class {row_c % 2}")
            assert (tile(data, "s1", row_u) == images[0][1::2][row_u].numpy()).all()


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 200, 150), (4, 8, 8)])
def test_images_of_any_shape(shape, tmp_path):
    base = random_images(1, shape[0], 4, 4)
    drawn = torch.nn.functional.interpolate(base.float(), size=shape[1:], mode="bicubic").clamp(0, 255).to(torch.uint8)
    banks = [Bank.from_images(drawn), Bank.from_images(255 - drawn)]
    data = data_of(compare(banks, "Pixels").report(tmp_path / "one.html"))
    assert max(data["tile"]) <= 96
    assert data["tile"][0] / data["tile"][1] == pytest.approx(shape[1] / shape[2], rel=0.02)
    cell = data["scores"][0]["cells"][0]
    assert (len(cell["most"]), len(cell["least"])) == (1, 0)
    assert not data["scores"][0]["controlled"]
    picture = Image.open(io.BytesIO(base64.b64decode(data["sheets"]["s0"]["uri"].partition(",")[2])))
    assert picture.mode == ("RGB" if shape[0] >= 3 else "L")


def test_images_keep_to_their_room(images, tmp_path):
    found = compare([Bank.from_images(each) for each in images], "Pixels")
    sizes = {}
    for megabytes in (10, 0.009, 0.004):
        data = data_of(found.report(tmp_path / "out.html", megabytes))
        sizes[megabytes] = sum(len(sheet["uri"]) for sheet in data["sheets"].values())
        count = len(data["scores"][0]["cells"][0]["most"])
        assert f"{count} pairs are shown from each end" in data["foot"]
    assert sizes[10] > 9_000 >= sizes[0.009]
    assert sizes[0.004] < sizes[0.009]


def test_a_path_that_cannot_be_is_one_line(found, tmp_path):
    (tmp_path / "file").write_text("")
    for given, word in (
        (tmp_path, f"is a folder; name a file: {tmp_path / 'report.html'}"),
        (tmp_path / "file" / "out.html", "cannot make the folder"),
    ):
        with pytest.raises(UserError) as caught:
            found.report(given)
        assert word in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="megabytes is 0"):
        found.report(tmp_path / "out.html", 0)
