"""Stacking: every camera's factors side by side go down, whatever their size (FLoRA, Wang et al. 2024, arXiv
2409.05976). Their product is the mean of the products, exactly, and cameras may differ in rank."""

from typing import Any

from .merged import MergedFedAvg

__all__ = ["Flora"]


class Flora(MergedFedAvg):
    """FedAvg of merged deltas with the stack on the way down; arguments as `FrameStrategy`'s."""

    source = "FLoRA, arXiv 2409.05976"
    exact = True

    def __init__(self, **common: Any) -> None:
        super().__init__(downlink="stack", **common)
