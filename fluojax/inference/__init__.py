"""Prediction: networks over whole images, labels, tables and files.

Modules are imported by name (`from fluojax.inference import tiling`), so that
cutting an image into tiles does not load the readers of pictures.
"""
