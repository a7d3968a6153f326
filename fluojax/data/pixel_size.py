"""How large a pixel of a file is, where its metadata say so."""

import re
from pathlib import Path

from fluojax.data.read import file_type

# OME writes unit names, ImageJ what its user typed.
_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "micron": 1.0, "microns": 1.0}
_UM |= {"µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "nm": 1e-3}
_CENTIMETER = 3  # ResolutionUnit of a TIFF; inches are those of screens and printers


def pixel_size_um(path: Path) -> float | None:
    """Width of a square pixel in micrometres, from OME, ImageJ or TIFF metadata.

    None for other files, for a TIFF that does not say, whose resolution is per
    inch (programs write 72 or 300 of them into every picture), or whose pixels
    are not square.
    """
    if file_type(path) != "tiff":
        return None
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            if tiff.is_ome:
                sizes = _ome(tiff.ome_metadata or "")
            elif tiff.is_imagej:
                unit = str((tiff.imagej_metadata or {}).get("unit", ""))
                sizes = _resolution(tiff.pages[0].tags, _UM.get(unit.lower()))
            else:
                tags = tiff.pages[0].tags
                unit = tags.get("ResolutionUnit")
                in_cm = unit is not None and int(unit.value) == _CENTIMETER
                sizes = _resolution(tags, 1e4 if in_cm else None)
    except Exception:  # whatever is wrong, reading the image tells
        return None
    if len(sizes) != 2 or not all(0 < size < 1e6 for size in sizes):
        return None
    # Rationals of a TIFF are rounded.
    return sizes[0] if abs(sizes[0] - sizes[1]) <= 1e-3 * sizes[0] else None


def _ome(text: str) -> list[float]:
    sizes = []
    for axis in "XY":
        size = re.search(rf'PhysicalSize{axis}="([^"]+)"', text)
        unit = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', text)
        factor = _UM.get(unit.group(1)) if unit else 1.0  # OME's default is um
        if size and factor:
            sizes.append(float(size.group(1)) * factor)
    return sizes


def _resolution(tags, unit_um: float | None) -> list[float]:
    if unit_um is None:
        return []
    found = [tags.get(name) for name in ("XResolution", "YResolution")]
    pairs = [tag.value for tag in found if tag is not None]
    return [unit_um * below / above for above, below in pairs if above]
