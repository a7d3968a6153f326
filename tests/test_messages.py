"""The messages for the commonest mistakes: text, exit code, no traceback.

One case per situation, through the command line in this process. Situations
that need a training run are tested where one is there:

17 nothing found              tests/jobs/test_jobs.py, test_nothing_found_...
18 loss not finite            tests/faults/test_interruptions.py, test_a_loss_...
19 background everywhere      tests/train/test_loop.py, test_a_network_that_sees_...
21 out of device memory       tests/train/test_parallel.py, test_too_much_memory_...;
                              while running: tests/test_cli.py, test_out_of_memory_...
24 checkpoint damaged         tests/train/test_checkpoint.py, test_one_flipped_bit_...;
                              of another model: test_a_checkpoint_of_another_...

Variants of 1 to 16 are in tests/data/test_folder.py, of 25 in tests/test_cli.py.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fluojax import catalog, cli, losses, runs
from fluojax.config import Experiment
from fluojax.console import Console
from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError
from fluojax.jobs import train


def grey(seed=0, shape=(24, 20)):
    return np.random.default_rng(seed).integers(20, 200, shape).astype(np.uint8)


def labels(shape=(24, 20)):
    made = np.zeros(shape, np.uint16)
    made[2:9, 3:9] = 1
    made[12:20, 9:17] = 2
    return made


def folder(root, *, count=6, image=grey, mask=labels, suffix="tif"):
    """images/ and masks/ of `count` pairs."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for k in range(count):
        write(root / "images" / f"a{k}.tif", image(k))
        write(root / "masks" / f"a{k}.{suffix}", mask())
    return root


def write(path, array):
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array.astype(np.uint8)).save(path)


def missing(root):
    (root / "my_cells").mkdir()
    return root / "my_cell"


def no_images(root):
    for name in ("a.czi", "b.czi", "c.txt"):
        (root / name).write_bytes(b"ZISRAW")
    return root


def unpaired(root):
    folder(root, count=2)
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(f"other_{path.name}"))
    return root


def transposed(root):
    return folder(root, mask=lambda: labels().T)


def coloured_masks(root):
    colours = np.random.default_rng(0).integers(0, 255, (24, 20, 3)).astype(np.uint8)
    return folder(root, mask=lambda: colours, suffix="png")


def jpeg_masks(root):
    return folder(root, mask=lambda: 120 * labels(), suffix="jpg")


def binary(root):
    return folder(root, mask=lambda: (255 * (labels() > 0)).astype(np.uint8))


def fractions(root):
    return folder(root, mask=lambda: labels().astype(np.float32) + 0.5)


def empty_masks(root):
    return folder(root, mask=lambda: np.zeros((24, 20), np.uint16))


def stacks(root):
    return folder(root, image=lambda k: grey(k, (7, 24, 20)))


def channels(root):
    folder(root)
    write(root / "images" / "a3.tif", grey(0, (24, 20, 3)))
    return root


def mixed(root):
    folder(root)
    write(root / "images" / "a1.tif", grey(0).astype(np.uint16) * 100)
    write(root / "images" / "a2.tif", np.full((24, 20), 9, np.uint8))
    return root


def nan_pixels(root):
    values = grey(0).astype(np.float32)
    values[3, :2] = np.nan
    return folder(root, image=lambda k: values)


def damaged(root):
    folder(root)
    (root / "images" / "a4.tif").write_bytes(b"II*\x00nothing")
    return root


# number: (what makes the situation, exit code, what must be said)
FOLDERS = {
    1: (missing, 2, ["my_cell", "nearest that exists", "did you mean my_cells?"]),
    2: (no_images, 2, ["no images in", "2 × .czi, 1 × .txt", "readable are .tif",
                       "Fiji or bioio"]),
    3: (unpaired, 2, ["2 images, 2 masks, 0 pairs", "images/a0.tif", "pairs share a "
                      "stem", "_masks", "--mask-suffix"]),
    4: (transposed, 2, ["24x20", "20x24", "a0.tif", "transpose"]),
    5: (coloured_masks, 2, ["colours", "a mask has one channel"]),
    6: (jpeg_masks, 2, ["JPEG blurs labels", "different values", "PNG or TIFF"]),
    7: (binary, 0, ["read as binary; cells found by connected components, 2.0 per "
                    "image; touching cells are merged", "save labels 1..N"]),
    8: (fractions, 2, ["a0.tif", "0.5"]),
    9: (empty_masks, 2, ["nothing to learn"]),
    10: (stacks, 2, ["(7, 24, 20)", "--z max", "index", "--axes"]),
    11: (channels, 2, ["5 images with 1", "1 images with 3", "--channel"]),
    12: (mixed, 0, ["uint8 (5 files) and uint16 (1 files)", "1 constant images, "
                    "skipped in training"]),
    13: (nan_pixels, 2, ["a0.tif", "2 pixels (0.42%) are NaN or infinite"]),
    14: (damaged, 2, ["images/a4.tif: a TIFF without images"]),
}  # fmt: skip


@pytest.mark.parametrize("number", FOLDERS)
def test_what_is_said_about_a_folder(number, tmp_path, capsys):
    make, code, told = FOLDERS[number]
    data = str(make(tmp_path))
    # `check` lists problems and goes on; training refuses before it starts.
    words = ["check", data] if code == 0 else ["train", "--data", data, "--dry-run"]
    assert cli.main(words) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert err.count("\n") <= 1
    for text in told:
        assert text in out + err, text


def test_16_an_image_over_the_pixel_limit(tmp_path, capsys):
    words = ["check", str(folder(tmp_path)), "--max-pixels", "400"]
    assert cli.main(words) == 2
    text = "".join(capsys.readouterr())
    assert "480 pixels" in text and "GB of memory" in text and "--max-pixels N" in text


def dataset(count=3, size=24):
    records = [
        Record(
            grey(k, (size, size))[..., None], np.eye(size, dtype=np.int32), f"r{k}", "g"
        )
        for k in range(count)
    ]
    return Dataset("cells", {"train": records, "val": records[:1], "test": []})


def told_of(**fields):
    """The lines with which a training run begins."""
    lines = []
    console = Console(quiet=True)
    console.line = lines.append
    config = Experiment(**{"crop": 16, "batch_size": 4, "scaling": "fixed"} | fields)
    train._say_what_runs(config, dataset(), Path("runs/x"), console)
    return "\n".join(lines)


def test_15_images_smaller_than_the_crop():
    text = told_of(crop=64)
    assert "3 images are smaller than the crop of 64 px: padded by reflection" in text
    assert "the largest crop that fits all is 24" in text
    assert "smaller" not in told_of()


def test_20_a_gpu_that_jax_does_not_use(monkeypatch):
    exists = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda p: str(p) == "/proc/driver/nvidia" or exists(p)
    )
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    text = told_of()
    assert 'NVIDIA GPU visible, JAX uses the CPU: pip install "jax[cuda13]"' in text
    assert "cuda12" in text and "--device cpu" in text
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # what --device cpu sets
    assert "NVIDIA" not in told_of()


def test_22_a_batch_that_devices_cannot_share(tmp_path, capsys):
    words = ["train", "--data", "fnc_synth/smoke", "--model", "cresunet_nano",
             "--crop", "32", "--batch-size", "6", "--dry-run",
             "--workdir", str(tmp_path / "run")]  # fmt: skip
    assert cli.main(words) == 2
    text = "".join(capsys.readouterr())
    assert "batch_size 6 is not divisible by 4 devices" in text
    assert "--batch-size 4, --batch-size 8" in text


def test_22_a_batch_larger_than_the_data_set_is_told():
    text = told_of(batch_size=8)
    assert "batch size 8, 3 images" in text
    assert train._sizes_below(11) == "each once with --batch-size 8 or 4"
    assert "batch size" not in told_of(batch_size=2)


def test_23_a_workdir_of_another_configuration(tmp_path):
    facts = {"channels": 1, "diameter": 9.0, "intensity": None, "reference": "x"}
    config = Experiment(learning_rate=1e-3, num_steps=10)
    runs.start_run(config, tmp_path, facts)
    runs.start_run(dataclasses.replace(config, num_steps=20), tmp_path, facts)
    changed = dataclasses.replace(config, learning_rate=0.1, seed=3)
    with pytest.raises(UserError) as refused:
        runs.start_run(changed, tmp_path, facts)
    text = str(refused.value)
    assert "learning_rate: 0.001 -> 0.1" in text and "seed: 0 -> 3" in text
    assert "resume: drop the changes; new run: another --workdir" in text
    assert refused.value.exit_code == 2


def test_25_an_unknown_name_tells_the_nearest_the_family_and_the_list(capsys):
    assert cli.main(["train", "--loss", "dise_loss"]) == 2
    err = capsys.readouterr().err
    assert "did you mean dice_loss" in err
    assert "dice_loss is of the family overlap" in err
    assert "`fluojax list losses` names all" in err
    assert err.count("\n") == 1


def test_25_families_are_the_modules_of_the_losses():
    homes = {"unified": "pixel", "lovasz": "overlap", "ici": "instance"}
    homes |= {"imsahlo": "compound"}
    for name in catalog.LOSSES:
        function = getattr(losses, name, None)
        if name.endswith("_loss") and callable(function):
            module = function.__module__.rsplit(".", 1)[-1]
            assert catalog.family(name) == homes.get(module, module), name
    assert catalog.family("bce_w50") == "preset"
