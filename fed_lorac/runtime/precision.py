"""Which arithmetic a device does well. Knows hardware; not models."""

from typing import Literal

import torch

from fed_lorac.errors import RunError

__all__ = ["Precision", "resolved_device", "resolved_precision"]

Precision = Literal["fp32", "bf16"]


def resolved_device(asked: str) -> str:
    """`asked`, with "auto" settled: cuda where PyTorch finds one, else cpu; RunError where cuda is asked and is not."""
    if asked == "cpu" or torch.cuda.is_available():
        return "cpu" if asked == "cpu" else "cuda"
    if asked == "auto":
        return "cpu"
    why = "it finds none here" if torch.version.cuda else f"this build of it, {torch.__version__}, is for CPUs alone"
    raise RunError(f'run.device = "cuda" needs a GPU that PyTorch finds; {why}. Set run.device = "cpu", or "auto".')


def resolved_precision(asked: str, device: torch.device | str = "cpu") -> Precision:
    """`asked`, with "auto" settled: bf16 where the device multiplies bf16 in hardware, else fp32."""
    if asked != "auto":
        return "bf16" if asked == "bf16" else "fp32"
    return "bf16" if _multiplies_bf16(torch.device(device)) else "fp32"


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.cpu.get_capabilities()
    x86 = able.get("avx512_bf16") or able.get("amx_bf16")
    allowed = torch.backends.cpu.get_cpu_capability().startswith("AVX512")  # ATEN_CPU_CAPABILITY may ask for less
    return bool((x86 and allowed) or able.get("arm_bf16"))
