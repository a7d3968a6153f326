"""Damaged image files load or are refused in one line, soon and in little memory."""

import io
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fluojax.data import masks, read
from fluojax.errors import UserError

MAX_PIXELS = 10**8
# Numbers that programs trip over, in the widths that headers use.
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63)


def originals():
    """Small files of every kind that is read, by name."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (40, 56), np.uint8)
    deep = rng.integers(0, 4000, (40, 56), np.uint16)
    colour = rng.integers(0, 255, (40, 56, 3), np.uint8)
    tiffs = {
        "plain": (deep, {}),
        "deflate": (grey, {"compression": "zlib", "predictor": True}),
        "lzw": (colour, {"compression": "lzw", "photometric": "rgb"}),
        "tiled": (deep, {"tile": (16, 16), "compression": "zlib"}),
        "big": (deep, {"bigtiff": True, "byteorder": ">"}),
        "ome": (np.stack([deep] * 3), {"ome": True, "metadata": {"axes": "CYX"}}),
        "imagej": (np.stack([deep] * 3), {"imagej": True, "metadata": {"axes": "ZYX"}}),
        "float": (deep.astype(np.float32), {}),
    }
    files = {}
    for name, (array, options) in tiffs.items():
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, **options)
        files[f"{name}.tif"] = buffer.getvalue()
    pictures = {
        "grey.png": Image.fromarray(grey),
        "deep.png": Image.fromarray(deep),
        "colour.png": Image.fromarray(colour),
        "palette.png": Image.fromarray(grey // 8).convert("P"),
        "bits.png": Image.fromarray(grey > 99),
        "grey.jpg": Image.fromarray(grey),
        "colour.jpg": Image.fromarray(colour),
        "mask.gif": Image.fromarray(grey // 64),
    }
    for name, picture in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, format={"jpg": "jpeg"}.get(name[-3:], name[-3:]))
        files[name] = buffer.getvalue()
    for name, array in {"deep.npy": deep, "float.npy": deep / 7}.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        files[name] = buffer.getvalue()
    return files


def mutated(data, rng):
    """The bytes with flipped bits, a cut, other numbers in the header, or several."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(4)
        if kind == 0:
            for place in rng.integers(0, len(data), rng.integers(1, 30)):
                data[place] ^= 1 << rng.integers(8)
        elif kind == 1:
            data = data[: rng.integers(1, len(data) + 1)]
        else:
            # Headers lie at the front, those of TIFFs also at the back.
            width = int(rng.choice([1, 2, 4, 8]))
            near = int(rng.integers(0, min(len(data), 300)))
            place = near if kind == 2 else max(len(data) - 1 - near, 0)
            number = int(rng.choice(np.array(NUMBERS, object))) % 256**width
            order = "little" if rng.random() < 0.5 else "big"
            data[place : place + width] = number.to_bytes(width, order)
    return bytes(data)


def as_image(path):
    read.read_image(path, max_pixels=MAX_PIXELS)
    read.conversions(path)


def as_mask(path):
    masks.read_mask_plane(path, max_pixels=MAX_PIXELS)
    read.mask_conversions(path)


def outcome(path):
    """ "read" or the one line of refusal, of a file as an image and as a mask."""
    told = []
    for load in (as_image, as_mask):
        began = time.monotonic()
        try:
            load(path)
            told.append("read")
        except UserError as error:
            text = str(error)
            assert str(path) in text and "\n" not in text, text
            told.append(text)
        assert time.monotonic() - began < 10, path
    return told


def fuzz(folder, seeds):
    """Reads mutated files; how many of both readings succeeded, of how many."""
    files = originals()
    names = sorted(files)
    good = 0
    for seed in seeds:
        rng = np.random.default_rng([4, seed])
        name = names[seed % len(names)]
        path = Path(folder) / f"{seed}_{name}"
        path.write_bytes(mutated(files[name], rng))
        good += outcome(path).count("read")
        path.unlink()
    return good, 2 * len(seeds)


def test_the_files_are_read_before_they_are_damaged(tmp_path):
    for name, data in originals().items():
        (tmp_path / name).write_bytes(data)
        assert outcome(tmp_path / name)[0] == "read", name


def test_a_mask_of_five_samples_is_refused_by_its_colours(tmp_path):
    array = np.arange(8 * 9 * 5, dtype=np.uint8).reshape(8, 9, 5)
    tifffile.imwrite(tmp_path / "m.tif", array, photometric="rgb", planarconfig=1)
    assert "72 colours; a mask has one channel" in outcome(tmp_path / "m.tif")[1]


@pytest.mark.filterwarnings("ignore")
def test_sixty_damaged_files_load_or_are_refused_in_one_line(tmp_path):
    good, tried = fuzz(tmp_path, range(60))
    assert 0 < good < tried


@pytest.mark.slow
def test_two_thousand_damaged_files_need_less_than_two_gigabytes(tmp_path):
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), "2000"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["tried"] == 4000 and 0 < told["read"] < 4000
    assert told["bytes"] < 2**31
    assert done.stderr == ""


def main(folder, count):
    """In a process of its own: a crash is seen, and memory is its own."""
    import resource

    warnings.simplefilter("ignore")
    began = time.monotonic()
    good, tried = fuzz(folder, range(int(count)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"read": good, "tried": tried, "bytes": peak, "s": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
