"""The loss terms: pure functions of tensors. Weights and temperatures may be floats or 0-d tensors."""

import torch.nn.functional as F
from torch import Tensor

from ltsd.locations import LARGEST, centreness

Scalar = float | Tensor


def balanced_softmax(
    logits: Tensor, labels: Tensor, log_counts: Tensor, tau: Scalar, smoothing: Scalar | None = None
) -> Tensor:
    """Return the cross-entropy of logits shifted by the class prior, batch mean (balanced softmax; AT-BSL).

    Args:
        logits: [B, C] raw.
        labels: [B] int64.
        log_counts: [C] log of the training images of each class.
        tau: exponent of the prior; 0 is plain cross-entropy.
        smoothing: the share of the label that is spread equally over all classes, in [0, 1]; None for 0.
    """
    shifted = logits + tau * log_counts
    loss = F.cross_entropy(shifted, labels)
    if smoothing is not None:
        # Not by cross_entropy's own argument, which would read the number off the device.
        loss = loss + smoothing * (-F.log_softmax(shifted, dim=1).mean() - loss)
    return loss


def distillation(student_logits: Tensor, teacher_logits: Tensor, temperature: Scalar) -> Tensor:
    """Return T^2 * KL(softmax(teacher / T) || softmax(student / T)), batch mean (Hinton et al. 2015).

    Args:
        student_logits: [B, C] raw.
        teacher_logits: [B, C] raw, detached.
        temperature: T > 0.
    """
    student = F.log_softmax(student_logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def gradient_matching(student_difference: Tensor, teacher_difference: Tensor) -> Tensor:
    """Return KL(softmax(teacher) || softmax(student)) of the logit differences f(x + d) - f(x - d), batch mean.

    To first order the difference is 2 d . grad f, so matching it matches input gradients without second derivatives
    (IGDM, Lee et al.; the second student term of LTSD).
    """
    return distillation(student_difference, teacher_difference, 1.0)


def divergence(clean_logits: Tensor, adv_logits: Tensor) -> Tensor:
    """Return KL(softmax(clean) || softmax(adv)) of every example, [B]; both [B, C] raw (TRADES, MART, RoBal)."""
    clean, adv = F.log_softmax(clean_logits, dim=1), F.log_softmax(adv_logits, dim=1)
    return F.kl_div(adv, clean, reduction="none", log_target=True).sum(1)


def box_losses(answers: Tensor, distances: Tensor) -> Tensor:
    """Return the loss of each location's box, [R]: 1 - GIoU (Rezatofighi et al. 2019) plus the binary cross-entropy of
    the centreness (FCOS, section 3.3).

    Args:
        answers: [R, 5], the logarithms of the distances to the left, upper, right and lower side in strides, and the
            logit of the centreness.
        distances: [R, 4] the distances of the box that the location answers for.
    """
    from torchvision.ops import generalized_box_iou_loss  # takes a second to load, which other tasks can save

    signs = distances.new_tensor([-1, -1, 1, 1])
    predicted = signs * answers[:, :4].clamp_max(LARGEST).exp()
    apart: Tensor = generalized_box_iou_loss(predicted, signs * distances)
    return apart + F.binary_cross_entropy_with_logits(answers[:, 4], centreness(distances), reduction="none")
