"""Pixel sizes from the metadata of the programs that write them."""

import numpy as np
import pytest
import tifffile

from fluojax.data.pixel_size import pixel_size_um

IMAGE = np.zeros((8, 9), np.uint8)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("a.tif", {"imagej": True, "resolution": (4, 4),
                   "metadata": {"unit": "um"}}, 0.25),
        ("a.tif", {"imagej": True, "resolution": (4, 4),
                   "metadata": {"unit": "\\u00B5m"}}, 0.25),
        ("a.tif", {"imagej": True, "resolution": (2, 2),
                   "metadata": {"unit": "mm"}}, 500.0),
        ("a.tif", {"imagej": True, "resolution": (4, 4)}, None),  # pixels per what?
        ("a.ome.tif", {"metadata": {"axes": "YX", "PhysicalSizeX": 0.325,
                                    "PhysicalSizeY": 0.325}}, 0.325),
        ("a.ome.tif", {"metadata": {"axes": "YX", "PhysicalSizeX": 650.0,
                                    "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 650.0,
                                    "PhysicalSizeYUnit": "nm"}}, 0.65),
        ("a.ome.tif", {"metadata": {"axes": "YX", "PhysicalSizeX": 0.3,
                                    "PhysicalSizeY": 0.4}}, None),
        ("a.tif", {"resolution": (20000, 20000),
                   "resolutionunit": "CENTIMETER"}, 0.5),
        ("a.tif", {"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ("a.tif", {}, None),
    ],
)  # fmt: skip
def test_what_the_metadata_say(tmp_path, name, options, size):
    tifffile.imwrite(tmp_path / name, IMAGE, **options)
    assert pixel_size_um(tmp_path / name) == (size and pytest.approx(size, rel=1e-6))


def test_other_files_do_not_say(tmp_path):
    np.save(tmp_path / "a.npy", IMAGE)
    assert pixel_size_um(tmp_path / "a.npy") is None
