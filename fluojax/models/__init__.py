"""Segmentation networks in Flax Linen: images `[B, *S, C]` to logits `[B, *S, K]`."""

from fluojax.models.registry import create_model, list_models
from fluojax.models.weights import load_flat

__all__ = ["create_model", "list_models", "load_flat"]
