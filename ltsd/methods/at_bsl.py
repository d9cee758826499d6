"""AT-BSL: adversarial training with the balanced softmax loss (Yue et al. 2024); the attack is plain CE."""

from torch import Tensor, nn

from ltsd.losses import balanced_softmax
from ltsd.methods.at import adversary
from ltsd.methods.method import Measurements, Method
from ltsd.methods.setting import Setting


def objective(
    student: nn.Module, inputs: Tensor, adv_inputs: Tensor, labels: Tensor, setting: Setting
) -> tuple[Tensor, Measurements]:
    """CE(f(x_adv) + tau log n, y)."""
    logits = student(adv_inputs)
    return balanced_softmax(logits, labels, setting.log_counts, setting.softmax_tau), {"logits": logits}


METHOD = Method("AT-BSL", adversary, objective, shared=("balance.softmax_tau",))
