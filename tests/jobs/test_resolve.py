import json

import numpy as np
import pytest

from fluojax import config as configs
from fluojax import runs
from fluojax.config import Experiment
from fluojax.data import lesions
from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError
from fluojax.inference import prediction
from fluojax.jobs.train import resolve, train


def dataset(share=0.01, rank=2):
    """Training images of which `share` is foreground; validation is all cells."""
    shape = (20,) * rank
    cells = np.zeros(shape, np.int32)
    cells.ravel()[: int(share * cells.size)] = 1
    image = np.zeros((*shape, 1), np.uint8)
    train = [Record(image, cells, str(k), str(k)) for k in range(2)]
    unlabelled = Record(image, cells * 0, "u", "u", has_labels=False)
    full = Record(image, cells * 0 + 1, "v", "v")
    return Dataset("d", {"train": [*train, unlabelled], "val": [full], "test": []})


def resolved(**overrides):
    return resolve(configs.apply_overrides(Experiment(), overrides), dataset())


def test_class_weights_follow_from_the_training_images():
    config = resolved(**{"loss.0.options.pos_weight": "auto"})
    # One pixel in a hundred: the root of 99.
    assert config.loss[0].options == {"pos_weight": 9.9499}
    assert json.loads(json.dumps(configs.to_dict(config)))["loss"][0]["options"] == {
        "pos_weight": 9.9499
    }
    config = resolved(loss="focal_loss", **{"loss.0.options.class_weights": "auto"})
    assert config.loss[0].options == {"class_weights": [1.0, 9.9499]}
    assert resolved().loss == Experiment().loss


def test_other_options_cannot_be_auto():
    with pytest.raises(UserError, match=r"loss\.1\.options\.smooth: auto is known for"):
        resolved(**{"loss.1.options.smooth": "auto"})


def test_volumes_get_crops_and_batches_of_their_own():
    config = resolve(Experiment(), dataset(share=0.5, rank=3))
    assert config.crop == 96 and config.batch_size % 2 == 0
    assert resolve(Experiment(), dataset(share=0.001, rank=3)).crop == 32


@pytest.mark.slow
def test_a_network_of_volumes_trains_is_scored_and_refuses_pictures(tmp_path):
    drawn = [
        Record(s.image, s.instances, str(k), str(k), spacing=(6.0,) * 3)
        for k in range(6)
        for s in [lesions.sample(k, size=(16, 18, 16), spacing_mm=6.0)]
    ]
    splits = {"train": drawn[:3], "val": drawn[3:4], "test": drawn[4:]}
    volumes = Dataset("heads", splits, scaling="fixed", reference="instances")
    config = Experiment(
        data="lesion3d_synth", model="cresunet", model_options={"base_features": 4},
        crop=16, batch_size=4, num_steps=4, eval_every=4, save_every=4,
        postprocess_options={"min_area": 1}, workdir=str(tmp_path / "run"),
    )  # fmt: skip
    results = train(config, dataset=volumes)
    assert results["scores"]["n_images"] == 2 and 0 <= results["scores"]["dice"] <= 1
    assert (tmp_path / "run" / "report.md").exists()
    assert list((tmp_path / "run" / "figures" / "panels").glob("*.png"))
    network = runs.network_of(runs.open_run(tmp_path / "run"))
    probs = prediction.probabilities(network, drawn[5].image)
    assert probs.shape == (16, 18, 16) and 0 <= probs.min() <= probs.max() <= 1
    with pytest.raises(UserError, match="trained on volumes"):
        prediction.probabilities(network, drawn[5].image[0])
