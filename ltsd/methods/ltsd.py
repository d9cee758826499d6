"""LTSD, stage 2: a balanced loss and distillation from the balanced self-teacher (Cho et al., ICLR 2025)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltsd.knobs import Range, knob
from ltsd.losses import balanced_softmax, distillation, gradient_matching
from ltsd.methods.at import adversary
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext


@dataclass(frozen=True)
class Distill:
    """Temperature and weights of the two distillation terms."""

    temperature: float = knob(
        1.0, "softmax temperature of the distillation term", above=0, search=Range(0.5, 8.0, log=True)
    )
    kl_weight: float = knob(1.0, "weight of the distillation term", at_least=0, search=Range(0.1, 10.0, log=True))
    igdm_weight: float = knob(
        1.0,
        "weight of indirect gradient matching, ramped in over training; as published 10 on 100 and more classes",
        at_least=0,
        search=Range(0.1, 10.0, log=True, relative=True),
    )


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """Balanced softmax + kl_weight * distillation + igdm_weight * progress * gradient matching, on x_adv.

    With d = x_adv - x, gradient matching compares f(x + d) - f(x - d) of student and teacher.
    """
    own: Distill = context.own
    mirrored = 2 * inputs - adv_inputs
    logits, mirrored_logits = student(adv_inputs), student(mirrored)
    with torch.no_grad():
        assert context.teacher is not None
        teacher_logits, teacher_mirrored = context.teacher(torch.cat([adv_inputs, mirrored])).chunk(2)
    balanced = balanced_softmax(logits, labels, context.log_counts, context.softmax_tau)
    kl = distillation(logits, teacher_logits, own.temperature)
    igdm = gradient_matching(logits - mirrored_logits, teacher_logits - teacher_mirrored)
    loss = balanced + own.kl_weight * kl + own.igdm_weight * context.progress * igdm
    return loss, {"logits": logits, "balanced_loss": balanced, "kl_loss": kl, "igdm_loss": igdm}


METHOD = Method(
    "LTSD",
    adversary,
    objective,
    knobs=("distill", Distill),
    shared=("balance.softmax_tau", "balance.teacher_gamma"),
    needs_teacher=True,
)
