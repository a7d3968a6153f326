"""The command line: a thin shell over functions a script can call.

Nothing heavy is imported here before a command has been understood: help,
`list` and refusals answer without jax.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import fluojax
from fluojax import catalog
from fluojax import config as configs
from fluojax.config import Experiment
from fluojax.console import Console
from fluojax.errors import UserError, nearest
from fluojax.files import user_cache

# Long flags of `train` and the field that each sets.
FIELDS = {
    "data": ("DATA", "folder, fnc_synth[/demo|/smoke], lesion3d_synth or tfds:NAME"),
    "workdir": ("DIR", "run folder; an interrupted run in it is continued"),
    "loss": ("NAME", "registered loss, or several joined by +"),
    "model": ("NAME", "registered model"),
    "steps": ("N", "training steps"),
    "batch_size": ("N", "images per step over all devices"),
    "crop": ("N", "side of the training crops in pixels"),
    "lr": ("X", "learning rate"),
    "seed": ("N", "seed of initialisation, order and augmentation"),
}
# Flags of every command that reads images: data_options of the experiment.
DATA_FLAGS = {
    "mask_suffix": ("END", "ending of mask names, e.g. _cells"),
    "image_suffix": ("END", "ending of image names, e.g. _img"),
    "mask_kind": ("KIND", "auto, instances or binary"),
    "axes": ("AXES", "axes of the files, e.g. ZYX, where they do not say"),
    "channel": ("N", "the one channel to use, counted from 0"),
    "z": ("HOW", "reduce a stack: max, mean or an index"),
    "group": ("REGEX", "part of a name that keeps images in one split"),
    "unlabelled": ("skip|use", "images without mask"),
    "max_pixels": ("N", "largest image read"),
}
RENAMED = {"steps": "num_steps", "lr": "learning_rate"}
SMOKE = {
    "data": "fnc_synth/smoke",
    "model": "cresunet_nano",
    "crop": 64,
    "batch_size": 4,
    "num_steps": 20,
    "eval_every": 10,
    "save_every": 10,
}


class _Parser(argparse.ArgumentParser):
    """argparse with refusals of one line that name the nearest option."""

    def error(self, message: str) -> NoReturn:
        words = message.replace("'", " ").split()
        if "unrecognized" in words:
            known = {
                o for parser in _parsers(self) for o in parser._option_string_actions
            }
            option = next((w for w in words if w.startswith("-")), None)
            hint = nearest(option, known) if option else ""  # a word, not an option
        elif "COMMAND:" in words:
            hint = nearest(words[words.index("choice:") + 1], COMMANDS)
        else:
            hint = ""
        raise UserError(f"{message}{hint}; see {self.prog} --help")


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parser and those of its commands: argparse blames the top for all."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices.values()
    return found


def build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-q", "--quiet", action="store_true", help="errors only")
    common.add_argument("-v", "--verbose", action="store_true", help="tracebacks too")
    common.add_argument("--version", action="version", version=fluojax.__version__)
    parser = _Parser(
        prog="fluojax",
        parents=[common],
        description="Segment and count cells in fluorescence microscopy.",
        epilog="Exit codes: 0 done, 2 request or data wrong, 3 diverged, 4 some files "
        "failed, 75 interrupted and saved, 1 stopped by the machine or a bug.",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", parser_class=_Parser
    )

    for name, (text, add_arguments) in ARGUMENTS.items():
        command = commands.add_parser(
            name, parents=[common], help=text, description=text
        )
        add_arguments(command)
    return parser


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", default="fluojax-demo")


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--json", metavar="FILE", help="also write the facts as JSON")
    parser.add_argument(
        "--augment", metavar="PRESET", nargs="?", const="default",
        help="also draw augmented training crops: default, study or imsahlo",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE", help="that picture (default: augmentation.png)"
    )
    _add_settings(parser)


def _train_fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help=".py .json .yaml .toml"
    )
    for field, (metavar, text) in FIELDS.items():
        flag = "--" + field.replace("_", "-")
        parser.add_argument(flag, dest=field, metavar=metavar, help=text)
    _add_settings(parser)
    parser.add_argument("--smoke", action="store_true", help="tiny generated run")


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    _train_fields(parser)
    parser.add_argument("--dry-run", action="store_true", help="check, train nothing")
    _add_device(parser)
    parser.add_argument("--deterministic", action="store_true", help="on GPUs, slower")
    parser.add_argument("--distributed", choices=("auto", "off"), default="auto")


def _lr_find_arguments(parser: argparse.ArgumentParser) -> None:
    _train_fields(parser)
    parser.add_argument("--min", metavar="X", type=float, default=1e-6)
    parser.add_argument("--max", metavar="X", type=float, default=1.0)
    parser.add_argument("--iters", metavar="N", type=int, default=100)
    parser.add_argument("--out", metavar="PNG", default="lr_find.png")
    _add_device(parser)


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="experiment script, or a config")
    parser.add_argument("--workdir", metavar="DIR", help="default: runs/<SPEC>")
    parser.add_argument("--only", metavar="PATTERN", help="e.g. 'dice*' or '*/seed0'")
    parser.add_argument("--list", action="store_true", help="name the members, no run")
    parser.add_argument("--data", metavar="DATA", help="in place of the script's own")
    parser.add_argument(
        "--seeds", metavar="N|LIST", help="how many (from 0), or a list such as 0,5,25"
    )
    parser.add_argument("--scale", choices=("small", "full"), default="small")
    parser.add_argument("--variant", metavar="NAME", help="one of the script's")
    parser.add_argument("--smoke", action="store_true", help="tiny generated runs")
    parser.add_argument(
        "--ensemble", choices=("serial", "devices", "vmap", "auto"), default="serial",
        help="seeds of a configuration one after another, one on each device, all in "
        "one device, or whatever ten steps of each show to be fastest",
    )  # fmt: skip
    parser.add_argument(
        "--array", choices=("slurm",), help="print the script of a job array, no run"
    )
    parser.add_argument(
        "--element", metavar="K", type=int, help="run member K alone (see --list)"
    )
    _add_device(parser)


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN")
    parser.add_argument("--split", choices=("train", "val", "test"))
    parser.add_argument("--data", metavar="DATA", help="other data than the run's")
    parser.add_argument("--pred", metavar="DIR", help="predicted masks")
    parser.add_argument("--true", metavar="DIR", help="true masks")
    parser.add_argument(
        "--missing", choices=("count", "refuse", "skip"), default="count",
        help="true masks without prediction: every cell missed, refused, or left out",
    )  # fmt: skip
    parser.add_argument("--iou", metavar="X", type=float, default=0.4)
    parser.add_argument("--distance-px", metavar="X|auto", default="auto")
    parser.add_argument("--threshold", metavar="X|from-run", default="from-run")
    parser.add_argument("--out", metavar="DIR")
    _add_settings(parser)
    _add_device(parser)


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files or folders")
    parser.add_argument("--out", metavar="DIR", default="predictions")
    parser.add_argument(
        "--save", metavar="LIST", default="masks,cells,overlay",
        help="of masks, cells, rois, overlay, geojson, probs",
    )  # fmt: skip
    parser.add_argument("--tile", metavar="N|auto|off", default="auto")
    parser.add_argument("--threshold", metavar="X|from-run", default="from-run")
    parser.add_argument("--pixel-size", metavar="UM", type=float)
    parser.add_argument(
        "--tta", choices=("off", "5", "8"), default="off",
        help="average over 5 (flips, brightness) or 8 (turns, mirrors) views",
    )  # fmt: skip
    parser.add_argument(
        "--measure", choices=("basic", "full"), default="basic",
        help="full: also eccentricity, orientation, perimeter and solidity of cells",
    )  # fmt: skip
    parser.add_argument(
        "--shard", metavar="K/N", default="1/1", help="every N-th image from the K-th"
    )
    parser.add_argument("--overwrite", action="store_true")
    _add_settings(parser)
    _add_device(parser)


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="WHAT",
        choices=("losses", "ops", "metrics", "models", "train", "input", "all"),
        help="losses, ops, metrics, models (a forward pass), train (a training step), input "
        "(augmentation, and steps fed with it) or all",
    )  # fmt: skip
    parser.add_argument(
        "--size", choices=("A", "B", "full", "small"), default="A",
        help="A: 4x512x512 and images of 1200x1600 (training: 4x256x256); "
        "B: 16x512x768; full: both",
    )  # fmt: skip
    parser.add_argument("--rows", metavar="GLOB", help="e.g. 'loss/dice*'")
    parser.add_argument("--threads", metavar="N", type=int)
    parser.add_argument("--trials", metavar="N", type=int, help="default 9")
    parser.add_argument("--json", metavar="FILE", help="rewritten after every row")
    parser.add_argument(
        "--peers", action="store_true", help="beside PyTorch, MONAI, SciPy, ..."
    )
    parser.add_argument("--compare", metavar="OLD.json", help="new / old of each row")
    parser.add_argument("--force", action="store_true", help="compare other machines")
    _add_device(parser)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.add_argument(
        "--to", metavar="FORMAT", default="safetensors", help="safetensors or jax"
    )
    parser.add_argument(
        "--license", metavar="NAME", help="of the weights, for the card"
    )
    parser.add_argument("--out", metavar="DIR", help="default: RUN/export")


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="run or sweep")


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help=".pth or .safetensors")
    parser.add_argument("--model", metavar="NAME", default="cresunet")
    parser.add_argument("--out", metavar="RUN", help="new run folder")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = "|".join(catalog.CATALOG)
    parser.add_argument("what", nargs="?", metavar="WHAT", help=kinds)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reading images")
    for field, (metavar, text) in DATA_FLAGS.items():
        flag = "--" + field.replace("_", "-")
        group.add_argument(
            flag, dest=f"data_options.{field}", metavar=metavar, help=text
        )
    group.add_argument(
        "--manual-dir", metavar="DIR", help="where the files of a tfds:NAME lie"
    )
    group.add_argument(
        "--skip-bad", dest="data_options.skip_bad", action="store_const", const="true",
        help="leave out files that cannot be read",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="any field of the experiment, dotted; repeatable",
    )  # fmt: skip


def _settings(args: argparse.Namespace) -> dict[str, str]:
    """Flags about images, then --set, as overrides of the experiment."""
    flags = {
        name: value
        for name, value in vars(args).items()
        if name.startswith("data_options.") or name == "manual_dir"
    }
    given = {name: value for name, value in flags.items() if value is not None}
    return given | configs.parse_assignments(args.set)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu", "tpu"), default="auto"
    )


ARGUMENTS = {
    "demo": (
        "generated cells: train, predict, score, report; two minutes",
        _demo_arguments,
    ),
    "check": ("pair and read everything in a folder, train nothing", _check_arguments),
    "train": ("train, or continue, an experiment", _train_arguments),
    "lr-find": (
        "a learning rate for an experiment, by a range test",
        _lr_find_arguments,
    ),
    "sweep": ("the missing runs of an experiment, then its table", _sweep_arguments),
    "evaluate": (
        "score a run on a split, or two folders of masks",
        _evaluate_arguments,
    ),
    "predict": ("masks, tables and overlays for images", _predict_arguments),
    "report": ("pages and tables of a run or a sweep, made again", _report_arguments),
    "bench": ("time losses and operators on this machine", _bench_arguments),
    "export": ("weights of a run as files for others", _export_arguments),
    "import": ("published weights as a run folder", _import_arguments),
    "list": ("losses, models, metrics and data sets, a line each", _list_arguments),
    "info": ("versions and devices, to paste into a bug report", _add_device),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; never shows a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in arguments or "--verbose" in arguments
    try:
        args = build_parser().parse_args(arguments)
        if args.command is None:
            build_parser().print_help()
            return 2
        _environment(args)
        return COMMANDS[args.command](args, Console(quiet=args.quiet))
    except UserError as error:
        if verbose:
            traceback.print_exc()
        _complain(f"fluojax: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _complain("fluojax: stopped at once; what was saved before is intact")
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        if verbose:
            traceback.print_exc()
        name = f"{error.filename}: " if error.filename else ""
        _complain(f"fluojax: {name}{error.strerror or error}")
        return 1
    except ImportError as error:
        if verbose:
            traceback.print_exc()
        _complain(f'fluojax: {error}; pip install "fluojax[train]" brings all')
        return 2
    except Exception as error:
        return _bug(error, verbose)


def _bug(error: Exception, verbose: bool) -> int:
    if "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
        need = " ".join(str(error).split())[:160]
        _complain(
            f"fluojax: out of device memory: {need}; try half the --batch-size, a "
            "smaller --crop, or --set remat=true; if another process holds memory, "
            "lower XLA_PYTHON_CLIENT_MEM_FRACTION (JAX reserves 75 %)"
        )
        return 1
    if verbose:
        traceback.print_exc()
    with tempfile.NamedTemporaryFile(
        "w", prefix="fluojax-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(traceback.format_exc())
    _complain(
        f"fluojax: {type(error).__name__}: {' '.join(str(error).split())[:300]} - this "
        f"is a bug; the traceback is in {file.name}"
    )
    return 1


def _complain(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def _environment(args: argparse.Namespace) -> None:
    """What must be set before jax is imported."""
    device = getattr(args, "device", "auto")
    if device != "auto":
        os.environ["JAX_PLATFORMS"] = {"gpu": "cuda"}.get(device, device)
    if getattr(args, "deterministic", False):
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    cache = user_cache() / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    # The C++ log has nothing for users; errors still come as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


# --- commands ---------------------------------------------------------------------


def _demo(args: argparse.Namespace, console: Console) -> int:
    from fluojax.jobs import demo

    demo.run(Path(args.out), console)
    return 0


def experiment_of(args: argparse.Namespace) -> Experiment:
    """File, then flags, then --set: the later wins."""
    config = configs.load_config(args.config) if args.config else Experiment()
    overrides: dict[str, Any] = dict(SMOKE) if args.smoke else {}
    for field in FIELDS:
        value = getattr(args, field)
        if value is not None:
            overrides[RENAMED.get(field, field)] = value
    overrides |= _settings(args)
    config = configs.apply_overrides(config, overrides)
    _check_names(config)
    return config


def _check_names(config: Experiment) -> None:
    """Unknown losses and models are refused before jax is imported."""
    wanted = [("loss", term.name) for term in config.loss] + [("model", config.model)]
    for kind, name in wanted:
        known = catalog.CATALOG["losses" if kind == "loss" else "models"]
        if name not in known:
            close = nearest(name, known)
            first = close.removeprefix(" (did you mean ").split(",")[0].rstrip("?)")
            kin = f"; {first} is of the family {catalog.family(first)}"
            raise UserError(
                f"{kind}: {name!r} is unknown{close}"
                f"{kin if close and kind == 'loss' else ''}; "
                f"`fluojax list {'losses' if kind == 'loss' else 'models'}` names all"
            )


def _train(args: argparse.Namespace, console: Console) -> int:
    config = experiment_of(args)
    from fluojax.jobs import cluster, train

    if args.distributed == "auto":
        cluster.join_cluster(console)
    with _interruptible():
        train.train(config, console=console, dry_run=args.dry_run)
    return 0


def _interruptible():
    """SIGTERM and SIGUSR1 end the command with 75, also while nothing is trained."""
    from fluojax.train import loop, pace

    return pace.stopped_by_signals(
        loop.Interrupted("interrupted; run the same command again to continue")
    )


def _lr_find(args: argparse.Namespace, console: Console) -> int:
    config = experiment_of(args)
    if not 0 < args.min < args.max:
        raise UserError("--min, --max: need 0 < min < max")
    if args.iters < 10:
        raise UserError(f"--iters: needs at least 10, got {args.iters}")
    from fluojax.jobs import lr_find

    lr_find.lr_find(
        config, low=args.min, high=args.max, iters=args.iters, out=Path(args.out),
        console=console,
    )  # fmt: skip
    return 0


def _sweep(args: argparse.Namespace, console: Console) -> int:
    from fluojax.sweep import study as studies

    options = studies.Options(args.data, args.scale, args.variant, args.smoke)
    study = studies.load_study(args.spec, options)
    if args.seeds is not None:
        study = dataclasses.replace(study, seeds=studies.parse_seeds(args.seeds))
    for member in study.members.values():
        _check_names(member)
    name = "_".join(filter(None, [Path(args.spec).stem, args.variant]))
    root = Path(args.workdir or f"runs/{name}{'_smoke' if args.smoke else ''}")
    from fluojax.jobs import sweep

    words = sweep_words(args, root)
    if args.array:
        print(sweep.slurm_script(words, len(sweep.members_of(study))), end="")
    elif args.list:
        sweep.list_members(study, root, args.only, console)
    else:
        command = shlex.join(["fluojax", *words])
        with _interruptible():
            table = sweep.sweep(
                study, root, command=command, console=console, only=args.only,
                element=args.element, how=args.ensemble,
            )  # fmt: skip
        console.line(table)
        console.line(f"-> {root}")
    return 0


def sweep_words(args: argparse.Namespace, root: Path) -> list[str]:
    """The words of a sweep that decide its outcome, to type it again."""
    words = ["sweep", args.spec, "--workdir", str(root)]
    for name in ("data", "seeds", "variant"):
        if getattr(args, name) is not None:
            words += [f"--{name}", getattr(args, name)]
    words += ["--scale", args.scale] if args.scale != "small" else []
    return words + ["--smoke"] * args.smoke


def _check(args: argparse.Namespace, console: Console) -> int:
    settings = _settings(args)
    if args.augment is not None:
        settings = {"augmentation": args.augment, **settings}
    elif args.out is not None:
        raise UserError("check --out: names the picture of --augment, which is missing")
    config = configs.apply_overrides(Experiment(data=args.data), settings)
    from fluojax.jobs import check

    sheet = None if args.augment is None else args.out or "augmentation.png"
    return check.check(config, console, json_file=args.json, sheet_file=sheet)


def _number_or(text: str, word: str, flag: str) -> float | None:
    """A number, or None for the word that stands for the default."""
    if text == word:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{flag}: needs a number or {word}, got {text!r}") from None
    if not value >= 0 or value == float("inf"):
        raise UserError(f"{flag}: needs a number of at least 0, got {text}")
    return value


def _evaluate(args: argparse.Namespace, console: Console) -> int:
    distance = _number_or(args.distance_px, "auto", "--distance-px")
    threshold = _threshold(args.threshold)
    folders = args.pred is not None or args.true is not None
    if folders and (args.pred is None or args.true is None):
        raise UserError("evaluate: two folders need both --pred DIR and --true DIR")
    if folders == (args.run is not None):
        raise UserError("evaluate: needs either RUN or --pred DIR --true DIR")
    if not 0 <= args.iou < 1:
        raise UserError(f"--iou: must lie in [0, 1), got {args.iou:g}")
    from fluojax.jobs import evaluate

    out = Path(args.out) if args.out else None
    if folders:
        evaluate.evaluate_folders(
            Path(args.pred), Path(args.true), iou=args.iou, distance_px=distance,
            missing=args.missing, out=out or Path("evaluation"), console=console,
        )  # fmt: skip
    else:
        evaluate.evaluate_run(
            Path(args.run), split=args.split, data=args.data, iou=args.iou,
            distance_px=distance, threshold=threshold, out=out, console=console,
            overrides=_settings(args),
        )  # fmt: skip
    return 0


def _threshold(text: str) -> float | None:
    value = _number_or(text, "from-run", "--threshold")
    if value is not None and value > 1:
        raise UserError(f"--threshold: is a probability, at most 1, got {text}")
    return value


def _predict(args: argparse.Namespace, console: Console) -> int:
    threshold = _threshold(args.threshold)
    save = tuple(word.strip() for word in args.save.split(",") if word.strip())
    known = ("masks", "cells", "rois", "overlay", "geojson", "probs")
    for word in save:
        if word not in known:
            raise UserError(f"--save: {word!r} is none of {', '.join(known)}")
    tile: Any = {"auto": "auto", "off": None}.get(args.tile, args.tile)
    if isinstance(tile, str) and tile != "auto":
        if not tile.isdigit() or int(tile) == 0:
            raise UserError(f"--tile: needs a number, auto or off, got {args.tile!r}")
        tile = int(tile)
    from fluojax.jobs import predict

    return predict.predict_files(
        Path(args.run), args.images, Path(args.out), save=save, tile=tile,
        threshold=threshold, pixel_size_um=args.pixel_size, overwrite=args.overwrite,
        tta=args.tta, shard=_shard(args.shard), shapes=args.measure == "full",
        overrides=_settings(args),
        console=console,
    )  # fmt: skip


def _shard(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UserError(f"--shard: needs K/N with K from 1 to N, got {text!r}")


def _bench(args: argparse.Namespace, console: Console) -> int:
    from fluojax.jobs import bench

    return bench.bench(
        args.what, console, size=args.size, pattern=args.rows, threads=args.threads,
        trials=args.trials, json_file=args.json, with_peers=args.peers,
        compare=args.compare, force=args.force,
    )  # fmt: skip


def _export(args: argparse.Namespace, console: Console) -> int:
    from fluojax.jobs.export import export

    export(args.run, args.to, args.out, console, license_name=args.license)
    return 0


def _report(args: argparse.Namespace, console: Console) -> int:
    from fluojax.jobs import report

    report.report_run(Path(args.folder), console)
    return 0


def _import(args: argparse.Namespace, console: Console) -> int:
    from fluojax.jobs.import_weights import import_weights

    import_weights(args.file, args.model, args.out, console)
    return 0


def _list(args: argparse.Namespace, console: Console) -> int:
    if args.what is not None and args.what not in catalog.CATALOG:
        raise UserError(
            f"list: {args.what!r} is unknown{nearest(args.what, catalog.CATALOG)}; "
            f"known are {', '.join(catalog.CATALOG)}"
        )
    for kind, entries in catalog.CATALOG.items():
        if args.what in (None, kind):
            console.line(f"{kind}")
            width = max(map(len, entries))
            if kind == "models":
                console.line(f"  {'':<{width}}{_COST_HEAD}")
            for name, entry in entries.items():
                paper = f"  [{entry.paper}]" if entry.paper else ""
                cost = _cost(catalog.COSTS[name]) if kind == "models" else ""
                console.line(f"  {name:<{width}}{cost}  {entry.line}{paper}")
    return 0


_COST_HEAD = "   parameters  GFLOPs of image         divisor  ranks"


def _cost(cost: catalog.Cost) -> str:
    ranks = ", ".join(f"{rank}-D" for rank in cost.ranks)
    return (
        f"  {cost.parameters:>11,}  {cost.gflops:>6.1f}    {cost.image:<12} "
        f"{cost.divisor:>7}  {ranks:<8}"
    )


def _info(args: argparse.Namespace, console: Console) -> int:
    from fluojax import environment

    for name, value in environment.environment().items():
        console.line(f"{name:<18} {value}")
    for package in environment.OPTIONAL:
        console.line(f"{package:<18} {environment.version(package) or 'not installed'}")
    return 0


COMMANDS = {
    "demo": _demo,
    "check": _check,
    "train": _train,
    "lr-find": _lr_find,
    "sweep": _sweep,
    "evaluate": _evaluate,
    "predict": _predict,
    "bench": _bench,
    "export": _export,
    "report": _report,
    "import": _import,
    "list": _list,
    "info": _info,
}
