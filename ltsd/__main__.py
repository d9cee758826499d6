"""One run without Ray, Optuna or MLflow.

python -m ltsd data PATH                                   # what would be read of it, and whether all is well
python -m ltsd train --method ltsd --epochs 40 --out runs/one.pt
python -m ltsd train --out runs/one.pt --resume            # go on after an interruption
torchrun --nproc-per-node 4 --local-ranks-filter 0 -m ltsd train --out runs/one.pt   # one model on four GPUs
python -m ltsd evaluate runs/one.pt --attack standard --json out.json --picture out.png
python -m ltsd predict runs/one.pt PATH --attack --out answers.csv   # classes of your own images, or of their pixels
python -m ltsd export runs/one.pt --to onnx                # the network, to be run without ltsd
"""

import argparse
import json
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch

from ltsd import ranks
from ltsd.config import AttackConfig, Config
from ltsd.data import Splits, description, load_splits
from ltsd.data.longtail import class_groups
from ltsd.data_command import DataFlags, data_command
from ltsd.errors import UserError
from ltsd.evaluation.ensembles import ENSEMBLE_TITLE
from ltsd.evaluation.exams import EXAMS, Examined
from ltsd.evaluation.table import class_table
from ltsd.export import FORMATS, export_command
from ltsd.files import check_apart, check_writable, publishing
from ltsd.flags import Parser, add_flags, exit_code_of, values_set
from ltsd.methods import METHODS
from ltsd.model_card import ModelFacts, model_card
from ltsd.pictures import class_bars
from ltsd.precision import device_of
from ltsd.predict import STANDING, classes_command
from ltsd.predict_boxes import boxes_command
from ltsd.predict_maps import maps_command
from ltsd.runs import Run, check_same_images, config_for, load_model, open_run
from ltsd.tasks import TASKS, check_task
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split

ALIASES = {"data": "data.source"}
SHOWN = ("loss", "acc", "miou", "map50")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the flags and run a command; returns the exit code."""
    parser = Parser("python -m ltsd", __doc__ or "")
    commands = parser.add_subparsers(required=True, metavar="data|train|evaluate|predict|export", dest="command")
    data_parser = commands.add_parser("data", help="tell what a source holds, and what of it would serve for what")
    data_parser.add_argument("source", metavar="PATH", help="as --data.source")
    data_parser.add_argument(
        "--picture", type=Path, default=Path("data.png"), help="write a few images of every class here (%(default)s)"
    )
    add_flags(data_parser, DataFlags(), presets=DataFlags.presets())
    data_parser.set_defaults(run=data_command)
    train_parser = commands.add_parser("train", help="train one model, its teacher first where it needs one")
    train_parser.add_argument(
        "--out", type=Path, required=True, help="checkpoint to write, after every epoch; beside it its teacher's"
    )
    train_parser.add_argument("--resume", action="store_true", help="go on from the checkpoint where it exists")
    train_parser.add_argument(
        "--complete", action="store_true", help="train on the complete training set, without validation"
    )
    add_flags(train_parser, Config(), aliases=ALIASES, presets=Config.presets())
    train_parser.set_defaults(run=train_command)
    evaluate_parser = commands.add_parser("evaluate", help="examine a checkpoint on the test set, class by class")
    evaluate_parser.add_argument("checkpoint", type=Path, help="made by train, or the final model of a sweep")
    evaluate_parser.add_argument(
        "--attack",
        choices=(*ENSEMBLE_TITLE, "none"),
        default="none",
        help="AutoAttack beside clean images, FGSM, PGD-20, CW-20, LSA-20 and corruptions: standard, apgd-ce+t, which "
        "is its first half, aafew, AA-few for two or three classes, or none (default: none)",
    )
    evaluate_parser.add_argument("--json", type=Path, help="write every number here")
    evaluate_parser.add_argument("--card", type=Path, help="write a model card here, as Markdown")
    evaluate_parser.add_argument("--picture", type=Path, help="write the recalls per class here, as PNG")
    evaluate_parser.add_argument(
        "--correctness",
        type=Path,
        help="write here, as Parquet, which images are right under which attack; resume from an existing file",
    )
    evaluate_parser.set_defaults(run=evaluate_command)
    predict_parser = commands.add_parser(
        "predict", help="classify images, pixels, clips or texts; which answers survive attacks?"
    )
    predict_parser.add_argument("checkpoint", type=Path, help="made by train, or the final model of a sweep")
    predict_parser.add_argument(
        "images",
        nargs="+",
        metavar="PATH",
        help="images, clips, .txt with a text a line, CSV, Parquet; folders of them",
    )
    predict_parser.add_argument(
        "--attack", action="store_true", help="tell which answers survive attacks within eps, of texts two edits"
    )
    predict_parser.add_argument("--eps", type=_eps, help="radius of the attacks (default: that of the training)")
    predict_parser.add_argument("--out", type=Path, help="CSV, .json or folder of maps (default: CSV to the terminal)")
    predict_parser.set_defaults(run=predict_command)
    export_parser = commands.add_parser("export", help="write the network in a format that needs no ltsd")
    export_parser.add_argument("checkpoint", type=Path, help="made by train, or the final model of a sweep")
    export_parser.add_argument("--to", choices=list(FORMATS), required=True, help="format of the file")
    export_parser.add_argument("--out", type=Path, help="file to write (default: beside the checkpoint)")
    export_parser.set_defaults(run=export_command)
    parsed = parser.parse_known(arguments)
    code: int = parsed.run(parsed)
    return code


def train_command(parsed: argparse.Namespace) -> int:
    """`python -m ltsd train`, of one process or of those that torchrun starts."""
    with ranks.joined_by_torchrun():
        return _train_command(parsed)


def _train_command(parsed: argparse.Namespace) -> int:
    config = config_for(values_set(parsed, Config()))
    splits = load_splits(config.data)
    out: Path = parsed.out
    of_teacher = out.with_name(out.name.removesuffix(".pt") + ".teacher.pt")
    for path in (out, of_teacher) if METHODS[config.method].needs_teacher else (out,):
        if path.exists() and not parsed.resume:
            raise UserError(f"--out {out}: {path} exists already; add --resume to go on with it, or give another path")
    weights = check_task(config, splits.train)
    device = device_of(gpu=torch.cuda.is_available())
    check_writable(out)
    print("\n".join((*description.introduction(splits, config.data), *filter(None, [weights]))), flush=True)
    teacher = None
    if METHODS[config.method].needs_teacher:
        _train(_open_teacher(config, splits, parsed.complete, device, of_teacher, parsed.resume), of_teacher, "teacher")
        teacher, _ = load_model(of_teacher, device)
    data, val = (splits.complete, None) if parsed.complete else (splits.train, splits.val)
    resume = out if parsed.resume and out.exists() else None
    run = open_run(config, splits, data, val, device, teacher=teacher, resume=resume)
    _train(run, out, config.method)
    print(f"saved {out}; examine it with: python -m ltsd evaluate {out}")
    return 0


def _open_teacher(
    config: Config, splits: Splits, complete: bool, device: torch.device, path: Path, resume: bool
) -> Run:
    gamma = teacher_gamma(config, splits.imbalance_ratio)
    data = teacher_split(config, splits.complete if complete else splits.train, gamma)
    start = path if resume and path.exists() else None
    return open_run(teacher_config(config, gamma), splits, data, None, device, teacher=None, resume=start)


def _train(run: Run, path: Path, title: str) -> None:
    print(f"{title}: training {run.data.items}: {run.data.whereabouts()}", flush=True)
    for metrics in run.epochs():
        if ranks.is_first():
            run.save(path)
        shown = {name: value for name, value in metrics.values.items() if name.endswith(SHOWN)}
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        print(f"{title} epoch {metrics.epoch}/{run.config.epochs}  {metrics.seconds:.1f} s  {numbers}", flush=True)
    ranks.wait()


def evaluate_command(parsed: argparse.Namespace) -> int:
    """`python -m ltsd evaluate`."""
    device = device_of(gpu=torch.cuda.is_available())
    model, about = load_model(parsed.checkpoint, device)
    config = Config.recorded(about["config"])
    exam = EXAMS[config.task]
    exam.check(parsed.attack, len(about["class_names"]))
    outputs = (parsed.json, parsed.card, parsed.picture, parsed.correctness)
    for path in filter(None, outputs):
        check_writable(path)
    check_apart(outputs, [parsed.checkpoint])
    splits = load_splits(config.data)
    check_same_images(parsed.checkpoint, about, splits)
    test, counts, names = splits.test.to(device), about["class_counts"], about["class_names"]
    if parsed.correctness is not None and parsed.correctness.exists():
        _, of_file = exam.read(parsed.correctness)
        if of_file != exam.fingerprint(model, test, config.attack):
            raise UserError(
                f"--correctness {parsed.correctness}: holds the exam of another model, or one under other conditions; "
                f"give another path, or take the file away"
            )
    print(f"test {test.items}: {test.whereabouts()}", file=sys.stderr, flush=True)
    results: list[Examined] = []
    groups, examine = class_groups(counts, config.data.groups), exam.on(splits)
    for done, result in examine(model, test, groups, config.attack, parsed.attack, keep=parsed.correctness):
        print(f"{done} done", file=sys.stderr, flush=True)
        results.append(result)
    for doubt in results[-1].doubts:
        print(f"warning: {doubt}")
    print(class_table(results[-1], counts, names, exam.score, TASKS[config.task].items))
    if radius := results[-1].as_json().get("radius"):
        print(f"eps {config.attack.eps:.4g}: {radius}")
    if parsed.json is not None:
        with publishing(parsed.json) as temporary:
            content = {"class_names": names, "class_counts": counts} | results[-1].as_json()
            temporary.write_text(json.dumps(content, indent=1))
    if parsed.card is not None:
        facts = ModelFacts.of(config, splits, counts, results[-1].as_json())
        with publishing(parsed.card) as temporary:
            temporary.write_text(model_card(facts), encoding="utf-8")
    if parsed.picture is not None:
        task = TASKS[config.task]
        figure = class_bars(
            results[-1].per_class(), counts, names, groups, measure=task.class_measure, counted=task.counted
        )
        with publishing(parsed.picture) as temporary, temporary.open("wb") as file:
            figure.savefig(file, format="png")
    return 0


def predict_command(parsed: argparse.Namespace) -> int:
    """`python -m ltsd predict`."""
    check_apart([parsed.out], [parsed.checkpoint, *parsed.images])
    model, about = load_model(parsed.checkpoint, device_of(gpu=torch.cuda.is_available()))
    config = Config.recorded(about["config"])
    attack = None
    if parsed.attack:
        attack = config.attack if parsed.eps is None else AttackConfig(eps=parsed.eps)
    elif parsed.eps is not None:
        raise UserError("--eps is the radius of the attacks; add --attack, or leave it out")
    if parsed.eps is not None and TASKS[config.task].kind in STANDING:
        raise UserError(f"--eps {parsed.eps:g}: texts are attacked by edits, which have no radius; leave it out")
    if config.task == "detection":
        return boxes_command(model, about, parsed.images, parsed.out, is_attacked=attack is not None)
    if config.task == "segmentation":
        return maps_command(model, about, parsed.images, parsed.out, attack)
    return classes_command(model, about, parsed.images, parsed.out, attack)


def _eps(text: str) -> float:
    try:
        eps = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(f"--eps {text}: expected a number or a fraction such as 8/255") from None
    return float(Config().override({"attack.eps": eps}).attack.eps)


def command() -> int:
    """Run the command as a script; return its exit code."""
    return exit_code_of(main)


if __name__ == "__main__":
    sys.exit(command())
