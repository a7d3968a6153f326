r"""The hybrid loss of IMSAHLO, term by term.

Source: IMSAHLO, arXiv 2601.11645, Table IV; protocol as in ladder.py.
Data:   FNC v1 (283 images) at 512 x 768, grey (tfds:fnc_v1/imsahlo_512x768).
Full:   fluojax sweep experiments/hybrid_terms.py --scale full --workdir runs/hybrid
        IMSAHLO, batch 16, 50 epochs (650 steps)
Small:  the same without --scale [--data DATA]: generated cells, 8 features, crop 96,
        batch 8, 400 steps; about 5 minutes a member and core
Quick:  add --smoke

The paper gives weights of the full hybrid (0.4 Tversky, 0.2 contour, 0.3 focal, 0.1
clDice) and none of its parts. Ours: the same weights, rescaled to sum 1.
"""

import ladder
import published_tables

from fluojax.config import Experiment, Term
from fluojax.sweep import Options, Study

WEIGHTS = {"tversky": 0.4, "contour": 0.2, "focal": 0.3, "cldice": 0.1}
LOSSES = {
    "tversky": "tversky_imsahlo",
    "contour": "contour_imsahlo",
    "focal": "focal_imsahlo",
    "cldice": "soft_cldice_loss",
}
ROWS = (
    ("tversky",),
    ("contour",),
    ("focal",),
    ("cldice",),
    ("tversky", "contour"),
    ("tversky", "focal"),
    ("tversky", "contour", "focal"),
    ("tversky", "contour", "focal", "cldice"),
)


def hybrid(terms: tuple[str, ...]) -> tuple[Term, ...]:
    """The terms with the weights of the full hybrid, rescaled to sum 1."""
    total = sum(WEIGHTS[term] for term in terms)
    return tuple(Term(LOSSES[term], WEIGHTS[term] / total) for term in terms)


def study(options: Options) -> Study:
    members = {
        "+".join(terms): Experiment(
            **ladder.settings(options),
            model="imsahlo",
            model_options={"base_features": ladder.WIDTH[options.scale]},
            loss=hybrid(terms),
        )
        for terms in ROWS
    }
    return Study(
        title=f"Terms of the IMSAHLO hybrid (Table IV), {options.scale} scale",
        members=members,
        seeds=(0, 1, 2),
        columns=("dice", "macro_f1", "iou", "f1_iou", "f1_50", "mae"),
        published=published_tables.imsahlo_terms(),
        **published_tables.told("imsahlo_table4", options),
    )
