"""LTSD, stage 2: a balanced loss and distillation from the balanced self-teacher (Cho et al., ICLR 2025)."""

import torch
from torch import Tensor, nn

from ltsd.losses import balanced_softmax, distillation, gradient_matching
from ltsd.methods.at import adversary
from ltsd.methods.setting import Setting

__all__ = ["adversary", "objective"]


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, setting: Setting
) -> tuple[Tensor, dict[str, Tensor]]:
    """Balanced softmax + kl_weight * distillation + igdm_weight * progress * gradient matching, on x_adv.

    With d = x_adv - x, gradient matching compares f(x + d) - f(x - d) of student and teacher.
    """
    mirrored = 2 * inputs - adv_inputs
    logits, mirrored_logits = student(adv_inputs), student(mirrored)
    with torch.no_grad():
        assert setting.teacher is not None
        teacher_logits, teacher_mirrored = setting.teacher(torch.cat([adv_inputs, mirrored])).chunk(2)
    balanced = balanced_softmax(logits, labels, setting.log_counts, setting.softmax_tau)
    kl = distillation(logits, teacher_logits, setting.temperature)
    igdm = gradient_matching(logits - mirrored_logits, teacher_logits - teacher_mirrored)
    loss = balanced + setting.kl_weight * kl + setting.igdm_weight * setting.progress * igdm
    return loss, {"logits": logits, "balanced_loss": balanced, "kl_loss": kl, "igdm_loss": igdm}
