"""AT-BSL: adversarial training with the balanced softmax loss (Yue et al. 2024); the attack is plain CE."""

from dataclasses import dataclass

from torch import Tensor, nn

from ltsd.knobs import knob
from ltsd.losses import balanced_softmax
from ltsd.methods.at import adversary
from ltsd.methods.method import Measurements, Method
from ltsd.methods.step_context import StepContext


@dataclass(frozen=True)
class Bsl:
    """Label smoothing, an option that the published method does not have."""

    label_smoothing: float = knob(
        0.0, "share of the label that is spread equally over all classes; 0: none, as published", at_least=0, below=1
    )


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, context: StepContext
) -> tuple[Tensor, Measurements]:
    """CE(f(x_adv) + tau log n, y)."""
    own: Bsl = context.own
    logits = student(adv_inputs)
    loss = balanced_softmax(logits, labels, context.log_counts, context.softmax_tau, own.label_smoothing)
    return loss, {"logits": logits}


METHOD = Method("AT-BSL", adversary, objective, knobs=("bsl", Bsl), shared=("balance.softmax_tau",))
