import numpy as np
import pytest

from fluojax.inference import augmented


@pytest.mark.parametrize("tta", augmented.VIEWS)
def test_views_are_changed_back(tta):
    image = np.random.default_rng(0).random((6, 9, 2)).astype(np.float32) / 2
    for view in augmented.VIEWS[tta]:
        back = view.undo(view.change(image))
        ratio = back / image
        np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-6)


def test_the_eight_views_of_an_image_all_differ():
    image = np.arange(12.0).reshape(3, 4, 1)
    views = {view.change(image).tobytes() for view in augmented.VIEWS["8"]}
    assert len(views) == 8


def test_predictions_are_averaged_where_they_belong():
    image = np.zeros((4, 6, 1), np.float32)
    image[0, 0] = 0.5

    def nearest_corner(x):
        # A network that only ever sees the upper left corner.
        found = np.zeros_like(x)
        found[0, 0] = x[0, 0]
        return found

    found = augmented.average(nearest_corner, image, "5")
    # Seen as it is and at two brightnesses, in the other corners 0.
    assert found[0, 0, 0] == pytest.approx((0.5 + 0.45 + 0.55) / 5)
    assert found.sum() == pytest.approx(found[0, 0, 0])


def test_a_network_without_preference_is_not_changed_by_turns():
    image = np.random.default_rng(1).random((5, 7, 1)).astype(np.float32)
    found = augmented.average(lambda x: x**2, image, "8")
    np.testing.assert_allclose(found, image**2, rtol=1e-6)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="one of off, 5, 8, got '4'"):
        augmented.average(lambda x: x, np.zeros((2, 2, 1)), "4")
