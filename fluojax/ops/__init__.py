"""Operators on one image `[*S]`, rank 2 or 3; `jax.vmap` makes them a batch."""

from fluojax.ops.clahe import clahe
from fluojax.ops.components import count_instances, label_components, relabel
from fluojax.ops.distance import distance_transform, signed_distance
from fluojax.ops.geometry import affine, affine_coordinates, sample
from fluojax.ops.local_moments import local_moments, moment_indices, moment_taps
from fluojax.ops.maxima import h_maxima, reconstruct
from fluojax.ops.moments import (
    RegionMoments,
    central_moments,
    centroids,
    hu_moments,
    moments,
    normalized_moments,
    region_moments,
)
from fluojax.ops.morphology import (
    close,
    contour_map,
    dilate,
    ellipse,
    erode,
    gradient,
    maximum_filter,
    open,
    tophat,
)
from fluojax.ops.nearest import NearestInstances, expand_labels, nearest_instance
from fluojax.ops.picture import (
    brightness_contrast,
    gaussian_blur,
    normalize_percentile,
)
from fluojax.ops.regions import fill_holes, remove_small_holes, remove_small_objects
from fluojax.ops.resize import resize_area, resize_instances
from fluojax.ops.skeleton import skeletonize, topological_skeleton
from fluojax.ops.soft_morphology import (
    soft_dilate,
    soft_erode,
    soft_open,
    soft_skeleton,
)
from fluojax.ops.warp import (
    elastic,
    elastic_coordinates,
    grid_distortion,
    grid_distortion_coordinates,
)
from fluojax.ops.watershed import (
    FluocellsStages,
    fluocells_postprocess,
    peak_local_max,
    split_necks,
    split_touching,
    watershed,
)
from fluojax.ops.weight_maps import (
    class_balance_weights,
    overcrowding_weights,
    unet_border_weights,
)

__all__ = [
    "affine",
    "affine_coordinates",
    "brightness_contrast",
    "central_moments",
    "centroids",
    "clahe",
    "class_balance_weights",
    "close",
    "contour_map",
    "count_instances",
    "dilate",
    "distance_transform",
    "elastic",
    "elastic_coordinates",
    "ellipse",
    "erode",
    "expand_labels",
    "fill_holes",
    "fluocells_postprocess",
    "FluocellsStages",
    "gaussian_blur",
    "gradient",
    "grid_distortion",
    "grid_distortion_coordinates",
    "h_maxima",
    "hu_moments",
    "label_components",
    "local_moments",
    "maximum_filter",
    "moment_indices",
    "moment_taps",
    "moments",
    "nearest_instance",
    "NearestInstances",
    "normalize_percentile",
    "normalized_moments",
    "open",
    "overcrowding_weights",
    "peak_local_max",
    "reconstruct",
    "region_moments",
    "RegionMoments",
    "relabel",
    "remove_small_holes",
    "remove_small_objects",
    "resize_area",
    "resize_instances",
    "sample",
    "signed_distance",
    "skeletonize",
    "soft_dilate",
    "soft_erode",
    "soft_open",
    "soft_skeleton",
    "split_necks",
    "split_touching",
    "tophat",
    "topological_skeleton",
    "unet_border_weights",
    "watershed",
]
