"""Drawings show each number where it belongs, and no text is cut off or drawn over another."""

import matplotlib.text
import numpy as np
import pytest
import torch
from matplotlib.transforms import Bbox
from PIL import Image

from repro.plots import (
    Curve,
    Panel,
    above,
    beside,
    curve_chart,
    heat_map,
    image_grid,
    line_chart,
    nearest_grid,
    plane_maps,
    rate_chart,
    rendered,
    save_figure,
)

RNG = np.random.default_rng(0)
LONG = "a system of a rather long name"
SUBTITLE = "SSCD > 0.6, n = 1,000, trained on CIFAR10 of 50,000 images and on Digits; below the diagonal: shuffled"


def axes_of(figure):
    return [axes for part in (figure, *figure.subfigs) for axes in part.axes]


def boxes(figure):
    """The place of every text that is shown, in pixels."""
    figure.canvas.draw()
    beyond = {
        label
        for axes in axes_of(figure)
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }  # matplotlib keeps such labels, but draws none of them
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text().strip()]
    return {text: text.get_window_extent() for text in texts if text not in beyond}


def drawings():
    images = torch.from_numpy(RNG.integers(0, 256, (4, 3, 3, 8, 10)).astype(np.uint8))
    names = ["a", LONG, "c"]
    places = np.linspace(0, 1, 51)
    panel = Panel(
        [Curve(LONG, [1, 10], [0.1, 0.9], [0, 0.8], [0.2, 1]), Curve("chance", [1, 10], [0, 0])], "p", "N", "y"
    )
    planes = [RNG.random((9, 9)) for _ in names]
    corners = [image[:3].numpy() for image in images.transpose(0, 1)]
    regions = [RNG.integers(-1, 3, (9, 9)) for _ in names]
    yield "heat map of 2", heat_map(*RNG.random((1, 2, 2)), [LONG, "b"], "Title", SUBTITLE)
    yield "heat map of 20", heat_map(RNG.random((20, 20)), [f"{LONG} {k}" for k in range(20)], "Title", SUBTITLE)
    yield "heat map of 60", heat_map(RNG.random((60, 60)), [f"system {k}" for k in range(60)], "Title", SUBTITLE)
    yield "image grid", image_grid(images, names, ["0", "1", "2", LONG], "Title", SUBTITLE)
    yield "nearest grid", nearest_grid([images[0]] * 3, [images[1]] * 3, [[0.5] * 3] * 3, names, "Title", SUBTITLE)
    yield "rates", rate_chart([0, 0.5, 1], [(0, 0.1), (0.4, 0.6), (0.9, 1)], names, "Title", SUBTITLE, "share")
    yield "curve chart", curve_chart(places, [1 - places, 1 - places**2], names[:2], "Title", SUBTITLE, [places], 0.6)
    yield "line chart", line_chart([panel, panel], "Title", SUBTITLE)
    yield "plane maps", plane_maps(regions, planes, planes, corners, (-0.3, 1.3), names, "Title", SUBTITLE)


@pytest.mark.parametrize("figure", [pytest.param(figure, id=name) for name, figure in drawings()])
def test_all_text_lies_inside_the_page_and_none_over_another(figure):
    found = boxes(figure)
    page, slanted = figure.bbox, [text for text in found if text.get_rotation() % 90]
    for text, box in found.items():
        assert page.x0 - 1 <= box.x0, text
        assert box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0, text
        assert box.y1 <= page.y1 + 1, text
    level = [(text, box) for text, box in found.items() if text not in slanted]
    for place, (text, box) in enumerate(level):
        for other, beyond in level[:place]:
            both = Bbox.intersection(box, beyond)
            assert both is None or min(both.width, both.height) < 2, (text, other)


@pytest.mark.parametrize("count", [2, 20])
def test_a_heat_map_shows_each_number(count):
    values, below = RNG.random((2, count, count))
    figure = heat_map(values, [f"Progressivev{place}" for place in range(count)], "title", "subtitle", below)
    shown = {tuple(round(x) for x in text.get_position()): text.get_text() for text in axes_of(figure)[0].texts}
    assert len(shown) == count * (count - 1)
    for (column, row), text in shown.items():
        assert float(text) == pytest.approx(values[row, column] if row < column else below[row, column], abs=0.0051)


def test_tiles_keep_their_pixels_and_shape():
    images = torch.from_numpy(RNG.integers(0, 256, (2, 3, 1, 4, 6)).astype(np.uint8))
    axes = axes_of(image_grid(images, list("abc"), list("01"), "Title"))[0]
    (picture,) = axes.images
    sheet = np.asarray(picture.get_array())
    assert sheet.shape == (2 * 5, 3 * 7, 3)
    for row in range(2):
        for column in range(3):
            tile = sheet[5 * row : 5 * row + 4, 7 * column : 7 * column + 6]
            assert (tile == images[row, column, 0].numpy()[..., None]).all()
    assert axes.get_aspect() == pytest.approx(5 / 7)


def test_curves_and_controls_are_drawn_as_they_are():
    places, rates = np.linspace(0, 1, 11), [np.linspace(1, 0, 11), np.linspace(0.5, 0, 11)]
    axes = axes_of(curve_chart(places, rates, ["a", "b"], "Title", controls=[places / 9], threshold=0.6))[0]
    drawn = [segment for lines in axes.collections for segment in lines.get_segments()]
    for expected, segment in zip([places / 9, *rates], drawn, strict=True):
        assert np.allclose(segment, np.column_stack([places, expected]))
    assert [line.get_xdata()[0] for line in axes.lines] == [0.6]


def test_sheets_join_pictures_on_white(tmp_path):
    figure = rate_chart([0.5], [(0.4, 0.6)], ["a"], "Title")
    picture = rendered(figure)
    small = np.zeros((5, 7, 3), np.uint8)
    joined = above([picture, small])
    assert joined.shape == (len(picture) + 5, picture.shape[1], 3)
    assert (joined[: len(picture)] == picture).all()
    assert (joined[-5:, :7] == 0).all()
    assert (joined[-5:, 7:] == 255).all()
    assert (beside([small, picture]).transpose(1, 0, 2)[:7, 5:] == 255).all()
    save_figure(figure, tmp_path / "figure.png", dpi=110)
    assert Image.open(tmp_path / "figure.png").size == picture.shape[1::-1]
