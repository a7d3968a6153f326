import io

import numpy as np
import pytest
from PIL import Image

from fluojax.cli import main
from fluojax.data import pipeline
from fluojax.data.record import Record
from fluojax.jobs.contact_sheet import contact_sheet as sheet_of


def upside_down(key, image, instances, where):
    return image[::-1], instances[::-1], where


def source(rank=2):
    """One record: a bright cell in the upper left of a dark image, 16 px wide."""
    cells = np.zeros((16,) * rank, np.int32)
    cells[(slice(2, 6),) * rank] = 1
    image = (20 + 200 * (cells > 0)).astype(np.uint8)[..., None]
    record = Record(image, cells, "a", "a")
    return pipeline.make_source([record], "fixed", 16, 1.0)


def panel(png, column, columns=2, rows=1):
    """A picture of the sheet, without the lines of text."""
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    assert sheet.shape == (16 + rows * (256 + 16), columns * 258, 3)
    return sheet[16 : 16 + 256, column * 258 : column * 258 + 256].astype(int)


@pytest.mark.parametrize("rank", [2, 3])
def test_rows_show_the_crop_and_then_its_draws_with_outlines(rank):
    png = sheet_of(source(rank), "fixed", upside_down, rows=1, draws=1)
    crop, draw = panel(png, 0), panel(png, 1)
    # A pixel of the crop is 16 px wide, so the cell lies from 32 to 96.
    assert (crop[40:88, 40:88] == 255).all() and (crop[120:, 120:] < 40).all()
    edge = crop[32, 32:96]
    assert (edge.max(-1) - edge.min(-1) > 50).all(), "outlines are coloured"
    if rank == 2:
        np.testing.assert_array_equal(draw, crop[::-1])
    else:  # the slices are turned round, not their rows
        np.testing.assert_array_equal(draw, crop)


def test_pixels_outside_the_image_are_dimmed():
    def half(key, image, instances, where):
        return image, instances, where & (np.arange(16) < 8)

    png = sheet_of(source(), "fixed", half, rows=1, draws=1)
    crop, draw = panel(png, 0), panel(png, 1)
    np.testing.assert_array_equal(draw[:, :128], crop[:, :128])
    assert (draw[:, 128:] < crop[:, 128:]).all()


def test_the_command_writes_the_sheet_and_refuses_what_it_cannot_draw(
    folder, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "sheet.png"
    calls = ["check", str(folder), "--out", str(out), "--set", "crop=32"]
    assert main(calls) == 2 and "--augment, which is missing" in capsys.readouterr().err
    assert main([*calls, "--augment", "studdy"]) == 2
    assert "default, study, imsahlo, none" in capsys.readouterr().err
    assert main([*calls, "--augment", "none"]) == 2
    assert "none changes nothing" in capsys.readouterr().err
    monkeypatch.setattr("fluojax.data.augment.augmentation", lambda *_: upside_down)
    assert main([*calls, "--augment"]) == 0
    assert f"sheet       {out}: augmentation default" in capsys.readouterr().out
    assert Image.open(out).width == 6 * (256 + 2)
