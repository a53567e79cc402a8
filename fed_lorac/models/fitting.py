"""A checkpoint's tensors into a network, all of them or none. Knows names, shapes and numbers; not files or data."""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from fed_lorac.errors import DataError
from fed_lorac.models.read import Checkpoint

__all__ = ["classifier_tensors", "load_into", "misfit_of_classifier", "put"]

_REPARAMETRISED = re.compile(r"_(orig|mask|g|v|u)$|(^|\.)parametrizations\.")
_SAVE = "Save the network again from a sound state"


def classifier_tensors(model: nn.Module) -> tuple[str, ...]:
    """Names of the weight and, where it has one, bias of the last nn.Linear, or where there is none of the last
    nn.Conv2d, as in SqueezeNet: a row a class. Empty: there is neither."""
    modules = list(model.named_modules())
    by_kind = ([(name, one) for name, one in modules if isinstance(one, kind)] for kind in (nn.Linear, nn.Conv2d))
    layers = next(filter(None, by_kind), [])
    if not layers:
        return ()
    name, layer = layers[-1]
    return tuple(f"{name}.{own}" for own in ("weight", "bias") if getattr(layer, own) is not None)


def misfit_of_classifier(model: nn.Module, checkpoint: Checkpoint) -> str:
    """In words, why the checkpoint's classifier is not for as many classes as the network's; empty where it is, or is
    of another network altogether, with other inputs, or there is none to be compared."""
    own, came, classifier = model.state_dict(), checkpoint.tensors, classifier_tensors(model)
    if not classifier:
        return ""
    if not any(name in came for name in classifier):
        return f"no classifier ({' and '.join(classifier)})"
    weight = classifier[0]
    if weight in came and came[weight].shape[1:] != own[weight].shape[1:]:
        return ""
    odd = [name for name in classifier if name not in came or came[name].shape != own[name].shape]
    return ", ".join(_misfit(name, came.get(name), own[name]) for name in odd)


def _misfit(name: str, came: Tensor | None, wanted: Tensor) -> str:
    return f"{name} {'missing' if came is None else tuple(came.shape)} for {tuple(wanted.shape)}"


def load_into(model: nn.Module, checkpoint: Checkpoint, source: str, *, fresh: Collection[str] = ()) -> tuple[str, ...]:
    """Load every tensor of `model` but the `fresh` ones, which stay as they were drawn; returns what to say of it.

    Everything is looked at before the first number is copied: half precision and float64 become float32.

    Raises:
        DataError: tensors that are missing, unknown, misshapen, or hold what no such tensor can; none is loaded then.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in fresh}
    came = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in fresh}
    # Of no use to a batch norm with a momentum, and files of before PyTorch 0.4.1 have none.
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    _check_names(own, came, counters, source)
    taken = {name: _sound(name, came[name], source) for name in own if name not in counters}
    counted = {name: came[name] for name in counters & came.keys() if _is_counter(came[name])}
    put(model, {**taken, **counted})
    kinds = sorted({str(came[name].dtype).removeprefix("torch.") for name in taken} - {"float32"})
    return (f"{' and '.join(kinds)} converted to float32",) if kinds else ()


@torch.no_grad()
def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy these tensors into those of `model` that have their names; others stay.

    By tensor, as a network's own `load_state_dict` may ask for more than tensors: torchvision's MnasNet does.
    """
    own = model.state_dict()
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def _check_names(own: Mapping[str, Tensor], came: Mapping[str, Tensor], counters: set[str], source: str) -> None:
    missing = [name for name in own if name not in came and name not in counters]
    unknown = [name for name in came if name not in own]
    misfits = [
        _misfit(name, came[name], own[name])
        for name in own
        if name in came and name not in counters and came[name].shape != own[name].shape
    ]
    if missing or unknown or misfits:
        raise DataError(
            f"A checkpoint must hold the model's tensors and no others; in {source} missing: {_first(missing)}, "
            f"unknown: {_first(unknown)}, of another shape: {_first(misfits)}. {_remedy(unknown, misfits)}"
        )


def _first(words: list[str]) -> str:
    """The first few of them, and how many there are."""
    return f"{len(words)} ({', '.join(words[:3])}{', ...' if len(words) > 3 else ''})" if words else "none"


def _remedy(unknown: list[str], misfits: list[str]) -> str:
    if any(name.endswith((".A", ".B")) for name in unknown):
        return "It is an adapter: name a network, such as a run's model.safetensors."
    if any(map(_REPARAMETRISED.search, unknown)):
        return (
            "Its layers are pruned or reparametrised: make them plain where it was made (torch.nn.utils.prune.remove, "
            "torch.nn.utils.parametrize.remove_parametrizations), and save it again."
        )
    if any(text.startswith("conv1.weight (64, 3, 7, 7)") for text in misfits):
        return "Its stem is ImageNet's: for torchvision's own weights set model.weights = \"imagenet\"."
    return "Set model.name, and width, norm and shortcut in its table [model.NAME], as they were in training."


def _sound(name: str, tensor: Tensor, source: str) -> Tensor:
    """The tensor as float32; DataError where it cannot be one, or holds what no network works with."""
    where = f"{name} {tuple(tensor.shape)} in {source}"
    if not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.is_meta:
        kind = str(tensor.dtype).removeprefix("torch.") + ("" if tensor.layout is torch.strided else ", sparse")
        raise DataError(
            f"Weights are dense floating-point numbers; {where} is {kind}. Save the network before it is quantised or "
            "made sparse."
        )
    found = tensor.to(torch.float32)
    if bad := int((~torch.isfinite(found)).sum()):
        raise DataError(
            f"Weights are finite numbers within float32; {where} has {bad:,} that are not (the first is "
            f"{tensor.flatten()[int((~torch.isfinite(found)).flatten().nonzero()[0])]:g}). {_SAVE}: did its training "
            "diverge?"
        )
    if name.endswith("running_var") and bool((found < 0).any()):
        raise DataError(f"A variance is never negative; {where} goes down to {found.min():g}. {_SAVE}.")
    return found


def _is_counter(tensor: Tensor) -> bool:
    return tensor.shape == torch.Size() and not (tensor.is_floating_point() or tensor.is_complex())
