"""The fields of an experiment, configuration files and `--set` overrides.

Standard library only (PyYAML is imported for a YAML file alone), so that the
command line answers a misspelt field before anything heavy is loaded. All
values are plain data; `config.json` of any run is a valid configuration.
"""

import ast
import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fluojax.errors import UserError, nearest, some

Options = Mapping[str, Any]
_MAX_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class Term:
    """One summand of the loss: a registered name, its weight, its options."""

    name: str
    weight: float = 1.0
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class DataOptions:
    """How a folder of images is read (ignored by generated data)."""

    image_suffix: str = ""  # e.g. "_img"; empty: by the known layouts
    mask_suffix: str = ""  # e.g. "_cells"
    mask_kind: Literal["auto", "instances", "binary"] = "auto"
    axes: str = ""  # axes of the files where metadata lack them, e.g. "ZYX"
    channel: int | None = None  # the one channel to keep
    z: str = ""  # "max", "mean" or an index into the stack
    group: str = ""  # regular expression; its match keeps images in one split
    unlabelled: Literal["skip", "use"] = "skip"
    skip_bad: bool = False
    max_pixels: int = 2_000_000_000


DEFAULT_DATA_OPTIONS = DataOptions()


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the outcome of a training run."""

    data: str = "fnc_synth"
    manual_dir: str | None = None
    data_options: DataOptions = DEFAULT_DATA_OPTIONS
    scaling: Literal["auto", "fixed", "percentile", "asinh"] = "auto"
    contrast: Literal["none", "clahe"] = "none"  # of whole images, before cropping
    crop: int | None = None  # pixels; none: six cell diameters of the data
    foreground_crops: float = 0.5  # probability that a crop is centred on a cell
    touching_gap: int = 0  # px of background learned between touching cells
    augmentation: Literal["default", "study", "imsahlo", "none"] = "default"
    model: str = "cresunet"
    model_options: Options = field(default_factory=dict)
    loss: tuple[Term, ...] = (
        Term("cross_entropy_loss", 1.0),
        Term("dice_loss", 1.0),
    )
    pool_batch: bool = False  # the loss sees a batch as one tall image (one device)
    squash_twice: bool = False  # the loss squashes probabilities again (loss study)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    optimizer_options: Options = field(default_factory=dict)  # b1, b2, eps, momentum
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4  # adamw: decoupled, on kernels only
    clip_norm: float | None = 1.0
    schedule: Literal["constant", "cosine", "one_cycle", "cyclical", "plateau"] = (
        "cosine"
    )
    num_steps: int = 2000
    batch_size: int | None = None  # over all devices; none: from the crop
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    log_every: int = 10
    eval_every: int = 200
    save_every: int = 200
    select: Literal["score", "dice", "loss"] = "score"  # of validation, for the best
    min_delta: float = 0.0  # less than this is no improvement
    patience: int | None = None  # evaluations without improvement before the end
    plateau_factor: float = 0.5  # schedule "plateau": lr is multiplied by this
    plateau_patience: int = 5  # ... after so many evaluations without improvement
    threshold: float | None = 0.5  # none: tuned on validation when training ends
    postprocess: Literal[
        "default", "imsahlo", "study", "study_scaled", "necks", "none"
    ] = "default"
    postprocess_options: Options = field(default_factory=dict)
    workdir: str | None = None


# Threshold aside, what turns probabilities into cells; lengths and areas in px.
_PLAIN = {
    "closing": 0,
    "apart": False,
    "fill_holes": False,
    "smooth_disk": 0,
    "max_hole_size": 0,
    "min_area": 0,
    "max_filter_size": 0,
    "footprint": 40,
    "neck_depth": 0.0,
    "neck_sigma": 1.0,
}
# "study" is that of the loss study for cells of 40 px; "study_scaled" becomes it
# with lengths and areas for the cells of the data, see `scaled_study`.
_STUDY = _PLAIN | {"smooth_disk": 3, "max_hole_size": 50}
_STUDY |= {"min_area": 200, "max_filter_size": 30}
POSTPROCESS: Mapping[str, Options] = {
    "default": _PLAIN | {"closing": 3, "fill_holes": True, "min_area": 15},
    "imsahlo": _PLAIN | {"closing": 3, "min_area": 15},
    "study": _STUDY,
    "study_scaled": _STUDY,
    "necks": _PLAIN | {"fill_holes": True, "min_area": 15, "neck_depth": 0.75},
    "none": _PLAIN,
}
STUDY_DIAMETER = 40.0  # px of a cell in the loss study's images
# Fields that may differ when a run is resumed: they do not change the steps done.
RESUMABLE = frozenset(
    {"num_steps", "log_every", "eval_every", "save_every", "patience", "workdir"}
    | {"threshold", "postprocess", "postprocess_options", "manual_dir"}
)


_LENGTHS = ("closing", "smooth_disk", "max_filter_size", "footprint")
_FINE_LENGTHS = ("neck_depth", "neck_sigma")  # parts of a pixel count
_AREAS = ("max_hole_size", "min_area")
# Of the options given, never of a preset: "um" makes lengths um and areas um²; the
# pixel size counts where the image does not tell its own.
_UNITS = {"units": "px", "pixel_size_um": None}


def postprocess_settings(config: Experiment) -> dict[str, Any]:
    """The named preset with the experiment's own options on top, as written.

    Raises:
      UserError: unknown options, or units other than px and um.
    """
    known = POSTPROCESS[config.postprocess]
    given = config.postprocess_options
    _refuse_unknown(given, {**known, **_UNITS}, "postprocess_options")
    if given.get("units", "px") not in ("px", "um"):
        raise UserError(
            f"postprocess_options.units: must be px or um, got {given['units']!r}"
        )
    return {**known, **given}


def postprocess_options(
    config: Experiment, pixel_size_um: float | None = None
) -> dict[str, Any]:
    """The same with lengths and areas in pixels, for `instances_from_probs`.

    Args:
      config: with `postprocess_options.units=um`, the lengths and areas in
        `postprocess_options` are micrometres and square micrometres; those of the
        preset stay pixels. Rounded but for necks; a closing to an odd width.
      pixel_size_um: of the image; None where it does not say.

    Raises:
      UserError: micrometres, and no pixel size.
    """
    settings = postprocess_settings(config)
    units, fallback = (settings.pop(n, _UNITS[n]) for n in ("units", "pixel_size_um"))
    size = pixel_size_um or fallback
    if units == "px":
        return settings
    if not size:
        raise UserError(
            "postprocess_options.units=um: the image does not tell its pixel size; give "
            "--pixel-size UM or --set postprocess_options.pixel_size_um=UM"
        )
    given = set(config.postprocess_options)
    for name in given & {*_FINE_LENGTHS}:
        settings[name] /= size
    for name in given & {*_LENGTHS, *_AREAS}:
        length = settings[name] / size ** (2 if name in _AREAS else 1)
        odd = name == "closing" and length > 0
        settings[name] = 2 * round((length - 1) / 2) + 1 if odd else round(length)
    return settings


def scaled_study(diameter: float) -> dict[str, Any]:
    """Post-processing of the loss study for cells of another diameter in px.

    Lengths grow with the diameter, windows to at least 3, areas with its square,
    to at least 1.
    """
    scale = diameter / STUDY_DIAMETER
    study = POSTPROCESS["study"]
    areas = {
        n: max(1, round(study[n] * scale**2)) for n in ("max_hole_size", "min_area")
    }
    windows = {
        n: max(3, round(study[n] * scale)) for n in ("max_filter_size", "footprint")
    }
    return {"smooth_disk": round(study["smooth_disk"] * scale), **areas, **windows}


def with_scaled_study(config: Experiment, diameter: float) -> Experiment:
    """ "study_scaled" as "study" with the options for cells of that diameter.

    Options of the experiment stay; a diameter of 0 (no cell) is that of the study.
    """
    if config.postprocess != "study_scaled":
        return config
    options = scaled_study(diameter or STUDY_DIAMETER)
    options |= dict(config.postprocess_options)
    return dataclasses.replace(config, postprocess="study", postprocess_options=options)


def default_workdir(config: Experiment) -> str:
    """`runs/<data>_<model>_<loss>/seed<k>`."""
    data = config.data
    if data.startswith("tfds:"):
        data = data.removeprefix("tfds:").replace("/", "_")
    data = Path(data).name
    loss = "+".join(term.name.removesuffix("_loss") for term in config.loss)
    return f"runs/{data}_{config.model}_{loss}/seed{config.seed}"


def validate(config: Experiment) -> Experiment:
    """The same experiment, or a refusal that names the field out of range."""
    positive = ("crop", "learning_rate", "num_steps", "batch_size", "log_every")
    positive += ("eval_every", "save_every", "patience", "clip_norm")
    for name in (*positive, "plateau_patience"):
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise UserError(f"{name}: must be positive, got {value}")
    for name in ("foreground_crops", "threshold", "plateau_factor"):
        value = getattr(config, name)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{name}: must lie in [0, 1], got {value}")
    if not 0 <= config.seed < 2**31:
        raise UserError(f"seed: must lie in [0, 2147483648), got {config.seed}")
    for name in ("weight_decay", "min_delta"):
        if getattr(config, name) < 0:
            value = getattr(config, name)
            raise UserError(f"{name}: must not be negative, got {value}")
    if not config.loss:
        raise UserError("loss: needs at least one term, e.g. --loss dice_loss")
    postprocess_settings(config)
    return config


# --- plain data <-> dataclasses -------------------------------------------------


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain data, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(data: Mapping[str, Any], base: Experiment | None = None) -> Experiment:
    """An experiment from nested plain data; unknown fields are refused."""
    return validate(_build(base or Experiment(), data, ""))


def apply_overrides(config: Experiment, overrides: Mapping[str, Any]) -> Experiment:
    """`{"a.b": value}` on top of `config`; strings are parsed by the field's type.

    Keys are dotted paths through dataclasses, mappings and lists
    (`loss.0.weight`, `model_options.base_features`).

    Raises:
      UserError: unknown field (with the nearest names), wrong type or choice.
    """
    for key, value in overrides.items():
        config = _override(config, type(config), key.split("."), value, key)
    return validate(config)


def parse_assignments(items: list[str]) -> dict[str, str]:
    """`["a.b=1", ...]` as a mapping; the text stays text."""
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UserError(f"--set: needs KEY=VALUE, got {item!r}")
        pairs[key.strip()] = value
    return pairs


def _build(base: Any, data: Any, path: str) -> Any:
    if not isinstance(data, Mapping):
        raise UserError(f"{path or 'configuration'}: needs a mapping, got {data!r}")
    hints = typing.get_type_hints(type(base))
    _refuse_unknown(data, hints, path)
    values = {}
    for name, value in data.items():
        where = f"{path}.{name}" if path else name
        values[name] = _convert(value, hints[name], where)
    return dataclasses.replace(base, **values)


def _refuse_unknown(names: Mapping[str, Any], known: Mapping[str, Any], path: str):
    for name in names:
        if name not in known:
            where = f"{path}.{name}" if path else str(name)
            raise UserError(
                f"{where}: no such field{nearest(str(name), known)}; "
                f"known are {some(sorted(known), 40)}"
            )


def _override(value: Any, hint: Any, path: list[str], new: Any, key: str) -> Any:
    if not path:
        return _convert(new, hint, key)
    name, rest = path[0], path[1:]
    if dataclasses.is_dataclass(value):
        hints = typing.get_type_hints(type(value))
        _refuse_unknown({name: None}, hints, ".".join(key.split(".")[: -len(path)]))
        inner = _override(getattr(value, name), hints[name], rest, new, key)
        return dataclasses.replace(value, **{name: inner})
    if isinstance(value, Mapping):
        return {**value, name: _override(value.get(name, {}), Any, rest, new, key)}
    if isinstance(value, list | tuple):
        if not name.isdigit() or int(name) >= len(value):
            raise UserError(f"{key}: {name!r} is no index into {len(value)} items")
        items = list(value)
        items[int(name)] = _override(
            items[int(name)], type(items[int(name)]), rest, new, key
        )
        return tuple(items)
    raise UserError(f"{key}: {name!r} lies below a single value")


def _convert(value: Any, hint: Any, path: str) -> Any:
    """`value` as the annotated type; text is read as Python or JSON literals."""
    if hint == tuple[Term, ...]:
        return _loss_terms(value, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None or (isinstance(value, str) and value.lower() in _NONE):
            return None
        (inner,) = [arg for arg in args if arg is not type(None)]
        return _convert(value, inner, path)
    if origin is Literal:
        if value not in args:
            raise UserError(
                f"{path}: {value!r} is not one of {', '.join(map(str, args))}"
                + nearest(str(value), map(str, args))
            )
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _build(hint(), value, path)
    if hint is str:
        return _expect(value, isinstance(value, str), "text", path)
    value = _literal(value)
    if hint is bool:
        return _expect(value, isinstance(value, bool), "true or false", path)
    if hint is int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        is_int = isinstance(value, int) and not isinstance(value, bool)
        return _expect(value, is_int, "a whole number", path)
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        _expect(value, is_number and abs(value) < 1e300, "a finite number", path)
        return float(value)
    if origin is not None and issubclass(origin, Mapping):
        return dict(_expect(value, isinstance(value, Mapping), "a mapping", path))
    return tuple(value) if isinstance(value, list) else value


_NONE = ("none", "null", "")


def _expect(value: Any, fits: bool, wanted: str, path: str) -> Any:
    if not fits:
        raise UserError(f"{path}: needs {wanted}, got {value!r}")
    return value


def _literal(value: Any) -> Any:
    """Text as the number, boolean, list or mapping it spells, else unchanged."""
    if not isinstance(value, str):
        return value
    words = {"true": True, "false": False, "none": None, "null": None}
    if value.strip().lower() in words:
        return words[value.strip().lower()]
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _loss_terms(value: Any, path: str) -> tuple[Term, ...]:
    """A name, `a+b`, or a list of names, `[name, weight, options]` or mappings."""
    value = _literal(value)
    if isinstance(value, str):
        return tuple(Term(name.strip()) for name in value.split("+"))
    if not isinstance(value, list | tuple):
        raise UserError(f"{path}: needs a name or a list of terms, got {value!r}")
    terms = []
    for index, item in enumerate(value):
        where = f"{path}.{index}"
        if isinstance(item, str):
            item = (item,)
        if isinstance(item, list | tuple) and 1 <= len(item) <= 3:
            item = dict(zip(("name", "weight", "options"), item, strict=False))
        if isinstance(item, Term):
            terms.append(item)
        elif isinstance(item, Mapping) and "name" in item:
            terms.append(_build(Term(""), item, where))
        else:
            raise UserError(f"{where}: needs name, weight, options; got {item!r}")
    return tuple(terms)


# --- files ----------------------------------------------------------------------


def load_config(path: str | Path) -> Experiment:
    """Reads a Python (`get_config()`), JSON, YAML or TOML configuration.

    A Python file is executed, which is why only a file named by the user ever
    gets here; a run folder is read back through its `config.json`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise UserError(f"configuration {path}: no such file")
    if path.suffix == ".py":
        return validate(_python_config(path))
    readers = {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
    readers[".toml"] = tomllib.loads
    if path.suffix not in readers:
        raise UserError(
            f"configuration {path}: readable are .py .json .yaml .yml .toml"
        )
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise UserError(f"configuration {path}: larger than {_MAX_FILE_BYTES} bytes")
    try:
        data = readers[path.suffix](path.read_text(encoding="utf-8"))
    except UserError:
        raise
    except Exception as error:  # every parser has its own exception
        reason = " ".join(str(error).split())
        raise UserError(f"configuration {path}: not readable: {reason}") from error
    return from_dict(data)


def run_python(path: Path, kind: str = "") -> dict[str, Any]:
    """The names that a Python file of the user defines; it is executed.

    Raises:
      UserError: an error in it, with its line.
    """
    import runpy

    try:
        return runpy.run_path(str(path))
    except Exception as error:
        line = getattr(error, "lineno", None) or _line_in(error, path)
        raise UserError(f"{kind}{path}, line {line}: {error}") from error


def _python_config(path: Path) -> Experiment:
    names = run_python(path, "configuration ")
    get_config = names.get("get_config")
    if not callable(get_config):
        raise UserError(f"configuration {path}: defines no get_config()")
    config = get_config()
    if not isinstance(config, Experiment):
        raise UserError(
            f"configuration {path}: get_config() must return an Experiment, "
            f"got {type(config).__name__}"
        )
    return config


def _line_in(error: BaseException, path: Path) -> int:
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _read_json(text: str) -> Any:
    def no_duplicates(pairs):
        keys = [key for key, _ in pairs]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise UserError(f"configuration: key {some(sorted(repeated))} stands twice")
        return dict(pairs)

    def no_constants(name):
        raise UserError(f"configuration: {name} is no finite number")

    return json.loads(
        text, object_pairs_hook=no_duplicates, parse_constant=no_constants
    )


def _read_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise UserError(
            'YAML needs PyYAML: pip install "fluojax[train]", or use JSON or TOML'
        ) from error
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
        raise UserError("configuration: YAML aliases are not allowed; write it out")
    return yaml.safe_load(text)
