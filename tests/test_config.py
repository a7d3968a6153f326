"""Configurations: typed, refused by name, read as data."""

import dataclasses
import json

import pytest

from fluojax.config import (
    DataOptions,
    Experiment,
    Term,
    apply_overrides,
    default_workdir,
    from_dict,
    load_config,
    postprocess_options,
    to_dict,
    validate,
)
from fluojax.errors import UserError


def test_a_configuration_survives_json():
    config = Experiment(
        loss=(Term("dice_loss", 0.5, {"smooth": 1.0}),),
        model_options={"base_features": 8},
        data_options=DataOptions(channel=1),
        clip_norm=None,
    )
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("learning_rate", "1e-3", 1e-3),
        ("crop", "none", None),
        ("clip_norm", "none", None),
        ("num_steps", "1e3", 1000),
        ("remat", "true", True),
        ("data", "123", "123"),
        ("model_options", "{'features': [8, 16]}", {"features": [8, 16]}),
        ("postprocess_options.min_area", "3", {"min_area": 3}),
        ("loss.1.weight", "0.3", None),
    ],
)
def test_text_is_read_by_the_type_of_the_field(key, text, value):
    config = apply_overrides(Experiment(), {key: text})
    if key == "loss.1.weight":
        assert config.loss[1] == Term("dice_loss", 0.3)
    else:
        assert getattr(config, key.split(".")[0]) == value


@pytest.mark.parametrize(
    "loss",
    [
        "dice_loss+focal_loss",
        '["dice_loss", "focal_loss"]',
        [["dice_loss"], ["focal_loss", 1.0, {}]],
        [{"name": "dice_loss"}, {"name": "focal_loss", "weight": 1}],
    ],
)
def test_losses_may_be_written_in_four_ways(loss):
    config = apply_overrides(Experiment(), {"loss": loss})
    assert config.loss == (Term("dice_loss"), Term("focal_loss"))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"modle": "unet"}, "modle: no such field .did you mean model"),
        ({"data_options.mask_knd": "auto"}, "did you mean mask_kind"),
        ({"loss.7.weight": "1"}, "no index into 2 items"),
        ({"seed.x": "1"}, "lies below a single value"),
        ({"remat": "1"}, "needs true or false, got 1"),
        ({"loss": "[3]"}, "loss.0: needs name, weight, options; got 3"),
        (
            {"postprocess_options.area": "3"},
            "known are apart, closing, fill_holes, footprint",
        ),
        ({"foreground_crops": "1.5"}, r"must lie in \[0, 1\], got 1.5"),
        ({"seed": "-1"}, "seed: must lie in"),
        ({"loss": "[]"}, "needs at least one term"),
    ],
)
def test_wrong_fields_are_refused_by_name(overrides, told):
    with pytest.raises(UserError, match=told):
        apply_overrides(Experiment(), overrides)


def write(path, text):
    path.write_text(text)
    return path


def test_four_kinds_of_file_say_the_same(tmp_path):
    files = [
        write(tmp_path / "a.json", '{"seed": 3, "model_options": {"norm": "group"}}'),
        write(tmp_path / "a.yaml", "seed: 3\nmodel_options: {norm: group}\n"),
        write(tmp_path / "a.toml", 'seed = 3\n[model_options]\nnorm = "group"\n'),
        write(
            tmp_path / "a.py",
            "from fluojax.config import Experiment\n"
            "def get_config():\n"
            "    return Experiment(seed=3, model_options={'norm': 'group'})\n",
        ),
    ]
    wanted = Experiment(seed=3, model_options={"norm": "group"})
    assert all(load_config(path) == wanted for path in files)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", '{"seed": 1, "seed": 2}', "seed stands twice"),
        ("a.json", '{"learning_rate": NaN}', "NaN is no finite number"),
        ("a.json", "{", "not readable"),
        ("a.json", "[1]", "needs a mapping"),
        ("a.yaml", "a: &x 1\nb: *x\n", "aliases are not allowed"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "not readable"),
        ("a.toml", "seed = ", "not readable"),
        ("a.py", "def get_config(:", "line 1"),
        ("a.py", "x = 1\n\n1 / 0\n", "line 3: division by zero"),
        ("a.py", "x = 1", r"defines no get_config\(\)"),
        ("a.py", "def get_config(): return 3", "must return an Experiment, got int"),
        ("a.txt", "", "readable are .py .json"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, name, text, told):
    with pytest.raises(UserError, match=told) as error:
        load_config(write(tmp_path / name, text))
    assert "\n" not in str(error.value)


def test_the_default_folder_says_what_ran():
    config = Experiment(data="some/where/cells", model="unet", seed=4)
    assert default_workdir(config) == "runs/cells_unet_cross_entropy+dice/seed4"
    named = apply_overrides(config, {"data": "tfds:fnc_v2/green"})
    assert default_workdir(named).startswith("runs/fnc_v2_green_unet_")


def test_postprocess_options_lie_on_top_of_the_preset():
    config = Experiment(postprocess_options={"min_area": 40})
    assert postprocess_options(config)["min_area"] == 40
    assert postprocess_options(config)["closing"] == 3


def test_given_lengths_in_micrometres_become_pixels_and_presets_stay():
    given = {"units": "um", "min_area": 10, "closing": 2.5, "footprint": 20}
    made = Experiment(postprocess="study", postprocess_options=given)
    found = postprocess_options(made, pixel_size_um=0.5)
    assert (found["min_area"], found["closing"], found["footprint"]) == (40, 5, 40)
    assert (found["max_hole_size"], found["smooth_disk"]) == (50, 3)  # of the preset
    assert "units" not in found and "pixel_size_um" not in found
    with pytest.raises(UserError, match="does not tell its pixel size"):
        postprocess_options(made)
    told = dataclasses.replace(made, postprocess_options=given | {"pixel_size_um": 1})
    assert postprocess_options(told)["min_area"] == 10
    deep = {"units": "um", "neck_depth": 0.4, "neck_sigma": 0.5}
    found = postprocess_options(Experiment(postprocess_options=deep), 0.8)
    assert (found["neck_depth"], found["neck_sigma"]) == (0.5, 0.625)  # not rounded
    wrong = dataclasses.replace(made, postprocess_options={"units": "mm"})
    with pytest.raises(UserError, match="must be px or um, got 'mm'"):
        validate(wrong)
