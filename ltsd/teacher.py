"""Stage 1: the balanced self-teacher, its training set D_B and its configuration."""

from dataclasses import replace

from ltsd.config import Config
from ltsd.data.batches import Split
from ltsd.tasks import TASKS


def teacher_gamma(config: Config, imbalance_ratio: float) -> float:
    """Return gamma: the one set, or half the imbalance ratio (LTSD, section 4), at least 1."""
    gamma = config.balance.teacher_gamma
    return max(1.0, imbalance_ratio / 2) if gamma is None else gamma


def teacher_config(config: Config, gamma: float) -> Config:
    """Return the teacher's configuration for a student: plain cross-entropy, in its own run, from the same seed.

    Students with equal teacher configurations share a teacher: knobs that shape the student alone have their defaults
    here.
    """
    plain, own = Config(), config.teacher
    return replace(
        config,
        method="at" if own.adversarial else "natural",
        epochs=own.epochs,
        optim=replace(
            config.optim,
            lr=own.lr,
            weight_decay=own.weight_decay,
            batch_size=own.batch_size,
            ema_decay=own.ema_decay,
            backbone_lr_scale=own.backbone_lr_scale,
            warmup_epochs=own.warmup_epochs,
            clip_grad_norm=own.clip_grad_norm,
        ),
        balance=replace(plain.balance, teacher_gamma=gamma),
        awp=plain.awp,
        robustlt=plain.robustlt,
        methods=plain.methods,
        evaluate=replace(plain.evaluate, every=own.epochs),
    )


def teacher_split(config: Config, data: Split, gamma: float) -> Split:
    """Return the balanced training set of the teacher, D_B, drawn from the seed.

    Raises:
        UserError: it would be empty.
    """
    return TASKS[config.task].teacher_split(data, gamma, config.seed)
