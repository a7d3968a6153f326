"""A picture of what augmentation does: training crops beside random draws."""

import io
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fluojax.data import contrast, pipeline, scaling
from fluojax.data.augment import Augmentation
from fluojax.inference.files import draw_outlines

ROWS, DRAWS = 5, 5
_SIDE = 256  # px; smaller crops are enlarged by whole numbers
_BAND = 16  # px for a line of text
_BRIGHTEST = 99.8  # percentile shown white


class Cell(NamedTuple):
    """One picture of the sheet: image `[*S, C]` in [0, 1], labels, what is image."""

    image: np.ndarray
    instances: np.ndarray
    where: np.ndarray


def contact_sheet(
    source: pipeline.Source,
    kind: scaling.Scaling,
    augment: Augmentation,
    *,
    seed: int = 0,
    rows: int = ROWS,
    draws: int = DRAWS,
) -> bytes:
    """PNG: a row per crop, first as it is, then `draws` times augmented.

    Outlines are those of the cells; what lies outside the image (padding, or
    turned in by a rotation) is dimmed. All pictures of a row share one scale of
    brightness. Volumes show the slice with the most foreground.

    Args:
      source: the training records.
      kind: the scaling that their images still need.
      augment: from `augment.augmentation`.
    """
    batch = pipeline.draw_batch(source, seed, 0, range(rows), rows)
    scaled = scaling.apply(batch["image"], batch["scale"], kind)
    originals = (scaled, batch["instances"], batch["where"])
    columns = [originals]
    changed = jax.jit(jax.vmap(augment))
    for number in range(draws):
        keys = jax.random.split(jax.random.key(1000 * seed + number), rows)
        columns.append(changed(keys, *originals))
    columns = [[np.asarray(x) for x in column] for column in columns]
    names = [source.records[number].id for number in batch["record"]]
    lines = [
        (name, [_flat(Cell(*(x[row] for x in column))) for column in columns])
        for row, name in enumerate(names)
    ]
    return _png(lines)


def suggested_source(
    records: list, kind: scaling.Scaling, crop: int, equalise: contrast.Contrast
) -> pipeline.Source:
    """Crops that are all centred on cells: more to see than in training."""
    return pipeline.make_source(records, kind, crop, 1.0, equalise)


def _flat(cell: Cell) -> Cell:
    if cell.instances.ndim == 2:
        return cell
    best = int(np.argmax((cell.instances > 0).sum((1, 2))))
    return Cell(*(x[best] for x in cell))


def _png(lines: list[tuple[str, list[Cell]]]) -> bytes:
    pictures = [_row(cells) for _, cells in lines]
    height, width = pictures[0].shape[:2]
    columns = len(lines[0][1])
    sheet = Image.new("RGB", (width, _BAND + (height + _BAND) * len(lines)))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number in range(columns):
        text = f"draw {number}" if number else "training crop"
        draw.text((number * width // columns + 2, 2), text, font=font, fill="white")
    for number, ((name, _), picture) in enumerate(zip(lines, pictures, strict=True)):
        top = _BAND + number * (height + _BAND)
        sheet.paste(Image.fromarray(picture), (0, top))
        shown = name.encode("latin-1", "replace").decode("latin-1")
        draw.text((2, top + height + 2), shown, font=font, fill="white")
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _row(cells: list[Cell]) -> np.ndarray:
    """Pictures side by side, a dark pixel between them."""
    brightest = max(np.percentile(cell.image, _BRIGHTEST) for cell in cells)
    times = max(_SIDE // min(cells[0].instances.shape), 1)
    pictures = []
    for cell in cells:
        grey = np.clip(cell.image / max(brightest, 1e-6), 0, 1)
        grey = np.where(cell.where[..., None], grey, 0.4 * grey)
        levels = np.rint(255 * grey).astype(np.uint8)
        rgb = _as_rgb(levels).repeat(times, 0).repeat(times, 1)
        draw_outlines(rgb, cell.instances.repeat(times, 0).repeat(times, 1))
        pictures.append(np.pad(rgb, ((0, 0), (0, 2), (0, 0))))
    return np.concatenate(pictures, axis=1)


def _as_rgb(levels: np.ndarray) -> np.ndarray:
    channels = levels.shape[-1]
    if channels == 1:
        return levels.repeat(3, -1)
    return np.pad(levels[..., :3], ((0, 0), (0, 0), (0, max(3 - channels, 0))))
