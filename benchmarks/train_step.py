"""How fast is a training step? Beside the step as it is usually written, and beside what the machine can multiply.

    python benchmarks/train_step.py                         # ResNet-18, batch 128, PGD-10: results/train_step.md
    python benchmarks/train_step.py --model small-resnet    # another network
    python benchmarks/train_step.py --peer DIR              # with a checkout of github.com/NISPLab/AT-BSL beside it

The steps take turns in one process, and the table has the median of each and the median of the ratios, turn by turn.
The limit is what the plain step multiplies and adds, counted, over the rate of a large matrix product measured here.
On a processor everything runs on one thread, as a trial does. About ten minutes on one core. On a GPU the step of this
project is timed as it is written, too, beside its recording.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import RESULTS, hardware, versions
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ltsd.config import Config
from ltsd.cuda_graphs import RECORDERS, WARM_STEPS, EagerStepper, GraphStepper, Recorder, Stepper
from ltsd.data.batches import Split
from ltsd.files import publishing
from ltsd.losses import balanced_softmax, distillation, gradient_matching
from ltsd.methods import METHODS
from ltsd.models import build_model
from ltsd.models.frozen import frozen
from ltsd.precision import compute_dtype
from ltsd.state import TrainState
from ltsd.step import batch_of, budget_of, context_of
from ltsd.tasks import TASKS

COUNTS = [5000, 3237, 2096, 1357, 878, 569, 368, 238, 154, 100]
MATRIX = {"cpu": 2048, "cuda": 8192}
EPS, STEP_SIZE = 8 / 255, 2 / 255

Step = Callable[[Tensor, Tensor], None]


def plain_step(config: Config, device: torch.device) -> Step:
    """A step as public code writes it: float32, the memory format of the images, the model itself under attack."""
    model = build_model(config.model, 3, 10).to(device, memory_format=torch.contiguous_format)
    teacher = build_model(config.model, 3, 10).to(device, memory_format=torch.contiguous_format).eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    log_counts = torch.tensor(COUNTS, device=device).log()

    def step(inputs: Tensor, labels: Tensor) -> None:
        model.eval()
        adv_inputs = inputs + torch.empty_like(inputs).uniform_(-EPS, EPS)
        for _ in range(config.attack.steps):
            adv_inputs.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(adv_inputs), labels), [adv_inputs])
            adv_inputs = adv_inputs.detach() + STEP_SIZE * gradient.sign()
            adv_inputs = torch.min(torch.max(adv_inputs, inputs - EPS), inputs + EPS).clamp(0, 1)
        model.train()
        optimizer.zero_grad()
        logits = model(adv_inputs)
        loss = balanced_softmax(logits, labels, log_counts, 1.0)
        if config.method == "ltsd":
            mirrored = 2 * inputs - adv_inputs
            with torch.no_grad():
                taught, taught_mirrored = teacher(adv_inputs), teacher(mirrored)
            matching = gradient_matching(logits - model(mirrored), taught - taught_mirrored)
            loss = loss + distillation(logits, taught, 1.0) + 0.5 * matching
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def our_step(config: Config, device: torch.device, recorder: Recorder | None = None) -> Step:
    """The step of this project, halfway through training; with a recorder recorded and replayed."""
    teacher = None
    if METHODS[config.method].needs_teacher:
        network = build_model(config.model, 3, 10).to(device).eval().requires_grad_(False)
        teacher = frozen(network, compute_dtype(config.precision, device))
    state = TrainState.fresh(config, 3, 10, device)
    state.student.train()
    context = context_of(config, COUNTS, config.epochs // 2, None, teacher, device)
    budget = budget_of(config, COUNTS, config.epochs // 2, device)
    generator = torch.Generator(device).manual_seed(0)
    task, method = TASKS[config.task], METHODS[config.method]
    split = Split(torch.zeros(1, 3, 32, 32), torch.zeros(1), torch.zeros(1, device=device), num_classes=10)
    stepper: Stepper = GraphStepper(recorder, config, split, teacher) if recorder else EagerStepper(task, method)
    working = stepper.at(state, teacher).__enter__()  # for good: the state is copied once an epoch, not once a step

    def step(inputs: Tensor, labels: Tensor) -> None:
        working.begin_step(config.optim.ema_decay)
        stepper.step(batch_of(task, method, inputs, labels, budget, generator), context, budget)

    return step


def peer_step(folder: Path, config: Config, device: torch.device) -> Step:
    """The step of a checkout of AT-BSL's public code, with its own network."""
    sys.path.insert(0, str(folder))
    peer: Any = importlib.import_module("at_bsl_loss")
    model: nn.Module = importlib.import_module("models.resnet").ResNet18(num_classes=10).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)

    def step(inputs: Tensor, labels: Tensor) -> None:
        model.train()
        optimizer.zero_grad()
        with cuda_calls_that_stay_at_home(device):
            loss = peer.pgd_loss(model, inputs, labels, COUNTS, optimizer, STEP_SIZE, EPS, config.attack.steps)
        loss.backward()
        optimizer.step()

    return step


@contextmanager
def cuda_calls_that_stay_at_home(device: torch.device) -> Iterator[None]:
    """Without a GPU, `.cuda()` leaves a tensor where it is: the peer calls it for its random start."""
    real = torch.Tensor.cuda
    if device.type == "cpu":
        torch.Tensor.cuda = lambda tensor: tensor  # type: ignore[method-assign, assignment]
    yield
    torch.Tensor.cuda = real  # type: ignore[method-assign]


def timed(step: Step, inputs: Tensor, labels: Tensor) -> float:
    """Seconds that a step takes."""
    _finish(inputs.device)
    started = time.perf_counter()
    step(inputs, labels)
    _finish(inputs.device)
    return time.perf_counter() - started


def operations(config: Config) -> int:
    """Floating-point operations of a step, an image: the attack's, whose backward passes reach for the inputs alone,
    and those of the update; LTSD's has a second pass, and a teacher that answers both.
    """
    model, inputs = build_model(config.model, 3, 10), torch.rand(2, 3, 32, 32)
    counts: list[int] = []
    for trains, attacks in ((False, False), (False, True), (True, False)):
        model.requires_grad_(trains)
        with FlopCounterMode(display=False) as counter:
            logits = model(inputs.clone().requires_grad_(attacks))
            if trains or attacks:
                logits.sum().backward()
        counts.append(counter.get_total_flops() // len(inputs))
    forward, attack, update = counts
    passes = 2 * (update + forward) if config.method == "ltsd" else update
    return config.attack.steps * attack + passes


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations a second of a large matrix product of random numbers; the median of seven."""
    size = MATRIX[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = [timed(lambda a, b: (a @ b, None)[1], a, b) for _ in range(9)]
    return 2 * size**3 / statistics.median(seconds[2:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(config: Config, device: torch.device, batch: int, rounds: int, peer: Path | None) -> Iterator[str]:
    """The rows of the table for one method."""
    steps: dict[str, Step] = {"plain": plain_step(config, device)}
    if peer is not None and config.method == "at-bsl" and config.model.name == "resnet18":
        steps["AT-BSL's public code"] = peer_step(peer, config, device)
    for precision in ("fp32", "bf16"):
        ours = config.override({"precision": precision})
        steps[f"here, {precision}"] = our_step(ours, device)
        if recorder := RECORDERS.get(device.type):
            steps[f"here, {precision}, recorded"] = our_step(ours, device, recorder)
    inputs = torch.rand(batch, 3, 32, 32, device=device)
    labels = torch.randint(10, (batch,), device=device)
    limit = operations(config)
    seconds: Mapping[str, list[float]] = {name: [] for name in steps}
    warm = WARM_STEPS + 1 if device.type in RECORDERS else 1
    for round_ in range(1 - warm, rounds + 1):
        for name, step in steps.items():
            taken = timed(step, inputs, labels)
            if round_ > 0:
                seconds[name].append(taken)
                print(f"{config.method}, {name}, turn {round_} of {rounds}: {taken:.2f} s", flush=True)
    for name, mine in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["plain"], mine, strict=True))
        rate = batch / statistics.median(mine)
        dtype = torch.bfloat16 if "bf16" in name else torch.float32
        share = limit * rate / matrix_rate(dtype, device)
        kind = "bf16" if dtype == torch.bfloat16 else "fp32"
        title = METHODS[config.method].title
        yield f"| {title} | {name} | {rate:.1f} | {ratio:.2f} | {limit * rate / 1e9:.0f} | {share:.0%} of {kind} |"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18", help="network (default: resnet18)")
    parser.add_argument("--batch", type=int, default=128, help="images a step (default: 128)")
    parser.add_argument("--steps", type=int, default=10, help="PGD steps (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that count (default: 5)")
    parser.add_argument("--peer", type=Path, help="folder of a checkout of AT-BSL's public code")
    parser.add_argument("--out", type=Path, default=RESULTS / "train_step.md", help="where the table goes")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = Config.preset("cifar10").override({"model.name": flags.model, "attack.steps": flags.steps})
    rows = [
        row
        for method in ("at-bsl", "ltsd")
        for row in measure(config.override({"method": method}), device, flags.batch, flags.rounds, flags.peer)
    ]
    command = f"python benchmarks/train_step.py --model {flags.model} --batch {flags.batch} --steps {flags.steps}"
    with publishing(flags.out) as temporary:
        temporary.write_text(
            f"# The training step: {flags.model}, 32x32 images, batch {flags.batch}, PGD-{flags.steps}\n\n"
            f"Made by `{command}{' --peer DIR' if flags.peer else ''}`; {versions('torch', 'ltsd')}; {hardware()}"
            f"{', one thread' if device.type == 'cpu' else ''}. Medians of {flags.rounds} turns; speed-up: median of "
            "the ratios to the plain step in the same turn; the last column is the share of the measured rate of a "
            "matrix product.\n\n"
            "| method | step | images/s | speed-up | GFLOP/s | of the matrix rate |\n|---|---|---|---|---|---|\n"
            + "\n".join(rows)
            + "\n"
        )
    print(flags.out.read_text())


if __name__ == "__main__":
    main()
