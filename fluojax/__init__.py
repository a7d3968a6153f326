"""Segmenting and counting cells in fluorescence microscopy with JAX.

`fluojax.losses`, `fluojax.metrics` and `fluojax.ops` are pure functions that
need jax and numpy only. `fit`, `load` and `evaluate` train a network on a
folder of images, open a finished run and score masks; they are imported when
first used, so that a project that wants a loss does not pay for the rest.
"""

__version__ = "0.1.0"

_LAZY = ("fit", "load", "evaluate")


def __getattr__(name: str):
    if name in _LAZY:
        from fluojax import api

        return getattr(api, name)
    raise AttributeError(f"module 'fluojax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
