"""The precision of networks in training. Weights, inputs, losses and every reported number are float32."""

import torch

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def device_of(*, gpu: bool) -> torch.device:
    """Return the GPU or the processor, and let float32 be multiplied as such: cuDNN would round its inputs to TF32, and
    matrix products if the environment says so.
    """
    if not gpu:
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda")


def computes_in(precision: str, device: torch.device) -> str:
    """Return what `precision` means on a device, bf16 or fp32; auto is bf16 if the device multiplies in it."""
    if precision == "auto":
        return "bf16" if _multiplies_in_bf16(device) else "fp32"
    return precision


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the same as a dtype."""
    return DTYPES[computes_in(precision, device)]


def _multiplies_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in BF16_INSTRUCTIONS)
