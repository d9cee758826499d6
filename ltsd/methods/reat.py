"""REAT: attacks balanced by the effective number of a class, and a penalty on tail features (Li et al. 2023)."""

import torch.nn.functional as F
from torch import Tensor, nn

from ltsd.attacks.pgd import Objective
from ltsd.losses import balanced_softmax
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext


def attack_weights(counts: Tensor, predicted: Tensor) -> Tensor:
    """Return w_c proportional to (1 - b_c) / (1 - b_c^A_c) with b_c = (n_c - 1) / n_c, of mean 1 (equation 4).

    Args:
        counts: [C] n_c.
        predicted: [C] A_c, the adversarial images that the last epoch assigned to class c.
    """
    rest = (counts - 1) / counts
    effective = (1 - rest**predicted) / (1 - rest)
    weights = 1 / (effective + 1e-5)
    return weights / weights.mean()


def tail_penalty(features: Tensor, labels: Tensor, counts: Tensor, tail: Tensor) -> Tensor:
    """Return the penalty on the features of tail images, as in the authors' code: a 0-d tensor, 0 without tail images.

    It is the mean, over the tail images i, of (mean_j KL(p_i || p_j) / D) * mean_j s_ij (w_i + w_j). Here j runs over
    the batch; p = softmax(features), and no gradient flows through p_i; s_ij is -1 for two images of one class, else 1;
    w_i = sqrt(N / n_c) for an image of class c, with N = sum n_c.

    Args:
        features: [B, D] float.
        labels: [B] int64.
        counts: [C] n_c.
        tail: bool [C], the tail classes.
    """
    log_shares = F.log_softmax(features, dim=1)
    centre = log_shares.detach()
    entropy = (centre.exp() * centre).sum(1)
    divergences = (entropy - centre.exp() @ log_shares.mean(0)) / features.shape[1]
    rarity = (counts.sum() / counts).sqrt()[labels]
    sign = 1 - 2 * (labels[:, None] == labels).to(features.dtype)
    pairs = (sign * (rarity[:, None] + rarity)).mean(1)
    is_tail = tail[labels].to(features.dtype)
    return (divergences * pairs * is_tail).sum() / is_tail.sum().clamp_min(1)


def adversary(student: nn.Module, inputs: Tensor, labels: Tensor, context: StepContext) -> Objective:
    """Return the class-weighted cross-entropy, so that attacks spread over the classes that the model predicts."""
    weights = attack_weights(context.log_counts.exp(), context.predicted)
    return lambda adv_inputs: F.cross_entropy(student(adv_inputs), labels, weight=weights, reduction="sum")


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """CE(f(x_adv) + tau log n, y) + the tail penalty (equation 7)."""
    features = student.get_submodule("features")(adv_inputs)
    logits = student.get_submodule("head")(features)
    balanced = balanced_softmax(logits, labels, context.log_counts, context.softmax_tau)
    penalty = tail_penalty(features, labels, context.log_counts.exp(), context.tail)
    return balanced + penalty, {"logits": logits, "balanced_loss": balanced, "tail_loss": penalty}


METHOD = Method("REAT", adversary, objective, shared=("balance.softmax_tau",), of_images=True)
