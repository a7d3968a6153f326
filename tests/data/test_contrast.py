import numpy as np
import pytest

from fluojax import ops
from fluojax.config import from_dict
from fluojax.data import contrast, pipeline, scaling
from fluojax.data.record import Record
from fluojax.errors import UserError
from fluojax.inference import prediction
from fluojax.jobs import train


def picture(channels=2, size=(48, 64)):
    rng = np.random.default_rng(0)
    ramp = np.linspace(20, 90, size[1])[None, :, None]
    return (ramp + rng.integers(0, 30, (*size, channels))).astype(np.uint8)


def test_none_leaves_the_image_and_its_scaling_alone():
    image = picture()
    same, scale = contrast.prepared(image, "percentile", "none")
    assert same is image
    expected = scaling.offset_and_gain(image, "percentile")
    np.testing.assert_array_equal(scale, expected)
    assert contrast.left_over("asinh", "none") == "asinh"


@pytest.mark.parametrize("kind", ["fixed", "percentile", "asinh"])
def test_every_channel_is_scaled_and_then_equalised(kind):
    image = picture()
    got, scale = contrast.prepared(image, kind, "clahe")
    whole = scaling.offset_and_gain(image, kind)
    scaled = np.asarray(scaling.apply(image[None], whole[None], kind))[0]
    levels = np.rint(scaled * 255).astype(np.uint8)
    for channel in range(2):
        expected = np.asarray(ops.clahe(levels[..., channel], 3.0, (8, 8)))
        np.testing.assert_array_equal(got[..., channel], expected)
    # What the step then does is a division by 255 and nothing else.
    seen = scaling.apply(got[None], scale[None], contrast.left_over(kind, "clahe"))
    np.testing.assert_allclose(np.asarray(seen)[0] * 255, got, atol=1e-3)


def test_crops_validation_and_prediction_see_the_same_values():
    image = picture()
    cells = np.zeros(image.shape[:2], np.int32)
    cells[20, 30] = 1
    kept = Record(image, cells, "a", "a")
    config = from_dict({"scaling": "percentile", "contrast": "clahe"})
    data = pipeline.make_source([kept], "percentile", 16, 1.0, "clahe")
    batch = pipeline.draw_batch(data, 0, 0, range(1), 1)
    whole = train._whole_images([kept], config, np.dtype(np.uint8), 16)
    left = contrast.left_over("percentile", "clahe")
    crop = np.asarray(scaling.apply(batch["image"], batch["scale"], left))[0]
    full = np.asarray(scaling.apply(whole["image"], whole["scale"], left))[0]
    np.testing.assert_array_equal(crop, full[12:28, 22:38])
    seen = []

    def logits(shown):
        seen.append(np.asarray(shown))
        return np.zeros((*shown.shape[:-1], 1), np.float32)

    network = prediction.Network(logits, "percentile", 8, 0, 16, 16, "clahe")
    prediction.probabilities(network, image)
    np.testing.assert_array_equal(seen[0][0], full)
    # Equalising a crop is another thing: its histogram is another one.
    alone, _ = contrast.prepared(image[12:28, 22:38], "percentile", "clahe")
    assert np.abs(alone / 255 - crop).max() > 0.05


def test_volumes_are_refused():
    with pytest.raises(UserError, match="clahe equalises images"):
        contrast.prepared(np.zeros((4, 8, 8, 1), np.uint8), "fixed", "clahe")


def test_runs_without_the_field_read_as_not_equalised():
    assert from_dict({"scaling": "fixed"}).contrast == "none"
    with pytest.raises(UserError, match="contrast.*none, clahe"):
        from_dict({"contrast": "equal"})
