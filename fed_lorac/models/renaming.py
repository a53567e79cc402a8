"""Names that published checkpoints have for a tensor of ours. Knows names; not files or layers.

A rule is tried on a name that the network lacks, and holds where it makes one that the network has: so no rule can
spoil a checkpoint that fits as it is.
"""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

__all__ = ["RULES", "renamed"]

RULES = (
    (r"^linear\.", "fc."),  # the classifier of akamaster/pytorch_resnet_cifar10 and kuangliu/pytorch-cifar
    (r"\.shortcut\.", ".downsample."),  # the projections of kuangliu/pytorch-cifar and weiaicunzai/pytorch-cifar100
    (r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2"),  # torchvision's own files of DenseNet
)
"""What is looked for in a name, and what stands there in ours."""


def renamed(tensors: Mapping[str, Tensor], names: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under the names of a network's, where a rule leads there; and what to say of it."""
    lacking = set(names) - set(tensors)
    new = {name: _ours(name) for name in tensors if name not in names and _ours(name) in lacking}
    found = {new.get(name, name): tensor for name, tensor in tensors.items()}
    first = next((f"{name} taken for {ours}" for name, ours in new.items()), "")
    return found, (f"{len(new)} tensors renamed ({first}{', ...' if len(new) > 1 else ''})",) if new else ()


def _ours(name: str) -> str:
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name
