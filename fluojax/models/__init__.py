"""Segmentation networks in Flax Linen: images `[B, *S, C]` to logits `[B, *S, K]`."""

from fluojax.models.registry import (
    create_model,
    foreground_probability,
    list_models,
    main_output,
)
from fluojax.models.summary import flops, layer_table, summarize
from fluojax.models.weights import abstract_variables, load_flat

__all__ = [
    "abstract_variables",
    "create_model",
    "flops",
    "foreground_probability",
    "layer_table",
    "list_models",
    "load_flat",
    "main_output",
    "summarize",
]
