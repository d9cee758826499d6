"""The script one would write without this project: Tune, OptunaSearch, ASHA, MLflow's callback, a trainable in PyTorch.

Fed by benchmarks/sweep.py, which times it. It has what its author would know to want: the same data, network, losses,
schedule, averaged weights, search space and validation as this project, and one thread a trial.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import ray
import torch
import torch.nn.functional as F
from optuna.samplers import TPESampler
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from rungs import FIXED
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ltsd.config import Config
from ltsd.data import load_splits
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.losses import balanced_softmax, distillation, gradient_matching
from ltsd.models import build_model
from ltsd.optimizers import learning_rate
from ltsd.tasks.classification import teacher_split
from ltsd.train import validate
from sweeps.settings.groups import groups_named
from sweeps.study.space import search_space

SCORE = "val/robust_acc"
BASE = Config.preset("digits")


def attack(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """PGD on the cross-entropy."""
    model.eval()
    eps, step_size = BASE.attack.eps, BASE.attack.resolved_step_size
    adv_inputs = (inputs + torch.empty_like(inputs).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(BASE.attack.steps):
        adv_inputs.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(adv_inputs), labels), adv_inputs)
        adv_inputs = adv_inputs.detach() + step_size * gradient.sign()
        adv_inputs = torch.min(torch.max(adv_inputs, inputs - eps), inputs + eps).clamp(0, 1)
    model.train()
    return adv_inputs.detach()


def fit(params: dict[str, Any], data: Split, val: Split | None, epochs: int, teacher: nn.Module | None) -> nn.Module:
    """Train a teacher (without one given) or a student; reports after every validation."""
    model = build_model(BASE.model, 1, 10)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(BASE.optim.ema_decay), use_buffers=True)
    base_lr = params["optim.lr"] if teacher is not None else BASE.teacher.lr
    optimizer = torch.optim.SGD(model.parameters(), base_lr, momentum=0.9, weight_decay=5e-4)
    log_counts = torch.tensor(data.class_counts()).float().log()
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = learning_rate(base_lr, epoch, epochs)
        order = torch.randperm(len(data))
        for positions in order[: len(order) - len(order) % 128].split(128) if len(order) > 128 else [order]:
            inputs, labels = data.take(positions)
            adv_inputs = attack(model, inputs, labels)
            logits = model(adv_inputs)
            if teacher is None:
                loss = F.cross_entropy(logits, labels)
            else:
                mirrored = 2 * inputs - adv_inputs
                with torch.no_grad():
                    taught, taught_mirrored = teacher(adv_inputs), teacher(mirrored)
                matching = gradient_matching(logits - model(mirrored), taught - taught_mirrored)
                loss = balanced_softmax(logits, labels, log_counts, params["balance.softmax_tau"])
                loss = loss + params["distill.kl_weight"] * distillation(logits, taught, params["distill.temperature"])
                loss = loss + params["distill.igdm_weight"] * epoch / epochs * matching
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update_parameters(model)
        if val is not None and ((epoch + 1) % BASE.evaluate.every == 0 or epoch + 1 == epochs):
            values, _ = validate(BASE, average.module, val, class_groups(data.class_counts()), "val")
            tune.report({SCORE: values[SCORE], "epoch": epoch + 1})
    return average.module.eval()


def trainable(params: dict[str, Any], seed: int) -> None:
    """A trial: its teacher, then its student."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    splits = load_splits(BASE.data)
    resampled = teacher_split(splits.train, params["balance.teacher_gamma"], seed)
    teacher = fit(params, resampled, None, BASE.teacher.epochs, None)
    fit(params, splits.train, splits.val, BASE.epochs, teacher)


def main() -> None:
    """Run the sweep in the current folder; writes every report to reports.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    flags = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    space = search_space(BASE, BASE.data.imbalance_ratio or 1.0, FIXED, groups_named(None, BASE.method))
    sampler = TPESampler(seed=flags.seed)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, seed=flags.seed), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric=SCORE,
            mode="max",
            num_samples=flags.trials,
            search_alg=OptunaSearch(space=space, metric=SCORE, mode="max", sampler=sampler),
            scheduler=ASHAScheduler(time_attr="epoch", max_t=BASE.epochs, grace_period=BASE.evaluate.every),
            max_concurrent_trials=2,
        ),
        run_config=tune.RunConfig(
            storage_path=str(Path("results").absolute()),
            callbacks=[MLflowLoggerCallback("sqlite:///mlflow.db", experiment_name="sweep")],
        ),
    )
    frames = [result.metrics_dataframe for result in tuner.fit()]
    reports = [
        (float(row["timestamp"]), int(row["epoch"]), float(row[SCORE]))
        for frame in frames
        if frame is not None
        for _, row in frame.iterrows()
    ]
    Path("reports.json").write_text(json.dumps(sorted(reports)))


if __name__ == "__main__":
    main()
