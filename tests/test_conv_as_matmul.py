"""A convolution written out as a matrix gives the convolution's answers and the gradient of its inputs."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ltsd.models.conv_as_matmul import ConvAsMatmul, is_cheaper_as_matmul
from ltsd.models.folding import Folded

SMALL = st.integers(1, 3)
CONVOLUTIONS = st.builds(
    nn.Conv2d,
    in_channels=st.integers(1, 5),
    out_channels=st.integers(1, 5),
    kernel_size=st.tuples(SMALL, SMALL),
    stride=st.tuples(SMALL, SMALL),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.just(1) | st.just(2),
    bias=st.booleans(),
)


@settings(max_examples=100, deadline=None)
@given(CONVOLUTIONS, st.integers(5, 8), st.integers(5, 8), st.booleans())
def test_the_matrix_is_the_convolution(conv: nn.Conv2d, height: int, width: int, is_channels_last: bool) -> None:
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    inputs = torch.rand(2, conv.in_channels, height, width).to(memory_format=layout).requires_grad_()
    dense = ConvAsMatmul(conv, inputs.shape[2:], torch.float32)
    with torch.no_grad():
        dense.refresh(torch.zeros_like(conv.weight), None)
        dense.refresh(conv.weight, conv.bias)
    mine, reference = dense(inputs), conv(inputs)
    torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)
    pull = torch.rand_like(reference)
    gradients = [torch.autograd.grad(outputs, inputs, pull)[0] for outputs in (mine, reference)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)


def test_images_of_any_size_may_come_after_each_other_and_all_see_the_weights_of_the_last_refresh() -> None:
    conv = nn.Conv2d(4, 8, 3, padding=1, bias=False)
    norm = nn.BatchNorm2d(8).eval()
    folded = Folded(conv, norm, torch.float32)
    sizes = [(2, 2), (32, 32), (3, 1), (2, 2)]
    for _ in range(2):
        with torch.no_grad():
            nn.init.normal_(conv.weight)
            nn.init.normal_(norm.bias)
            folded.refresh()
        for size in sizes:
            inputs = torch.rand(3, 4, *size)
            torch.testing.assert_close(folded(inputs), norm(conv(inputs)), rtol=1e-4, atol=1e-5)


def test_a_matrix_made_in_inference_mode_has_gradients_too() -> None:
    folded, inputs = Folded(nn.Conv2d(4, 8, 3, padding=1, bias=False), None, torch.float32), torch.rand(3, 4, 2, 2)
    with torch.no_grad():
        folded.refresh()
    with torch.inference_mode():
        folded(inputs)
    (gradient,) = torch.autograd.grad(folded(inputs.requires_grad_()).sum(), inputs)
    assert gradient.abs().sum() > 0


def test_a_matrix_is_chosen_on_a_processor_for_tiny_images_only() -> None:
    def chosen(size: int, device: str = "cpu", **kind: int) -> bool:
        return is_cheaper_as_matmul(
            nn.Conv2d(32, 64, 3, padding=1, **kind), torch.empty(1, 32, size, size, device=device)
        )

    assert [size for size in range(1, 9) if chosen(size)] == [1, 2, 3]
    assert not chosen(2, groups=2)
    assert not chosen(2, device="meta")
    assert is_cheaper_as_matmul(nn.Conv2d(1, 32, 3, 2, padding=1), torch.empty(1, 1, 8, 8))
    assert not is_cheaper_as_matmul(nn.Conv2d(3, 16, 3, 2, padding=1), torch.empty(1, 3, 32, 32))
