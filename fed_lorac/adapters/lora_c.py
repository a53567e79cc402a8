"""LoRA-C on a network: attach, read, load, reset, fold, detach, merge. Knows networks; no cameras, rounds or frames.

LoRA-C (arXiv 2410.16954): every convolution but the first is frozen and carries a low-rank branch (`layers`), the
first convolution's and the classifier's weights are trained as they are, all else is frozen; batch norm's running
statistics move in training mode as ever. The network is changed in place and keeps its module objects; while attached
its state_dict holds, beside its own keys, "<conv>.lora_A", "<conv>.lora_B" and, for weights trained as they are,
"<layer>.lora_base", their value at the turn's start.
"""

from typing import get_args

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import RANK_MODES, delta
from fed_lorac.adapters.attachment import (
    NOTE,
    Attachment,
    attachment,
    base_of,
    branch_of,
    conv_of,
    draw,
    factors_of,
    weight_of,
)
from fed_lorac.adapters.deltas import State, apply_changes, check_state
from fed_lorac.adapters.fold_bn import fold_batch_norm
from fed_lorac.adapters.lora_c_conv import RouteChoice, inject, remove_branch
from fed_lorac.adapters.plain import copied
from fed_lorac.adapters.targets import Targets, auto_rank_mode, find_targets
from fed_lorac.errors import FactorError
from fed_lorac.seeds import torch_stream

__all__ = [
    "Attachment",
    "attach",
    "attachment",
    "delta",
    "detach",
    "fold",
    "load_state",
    "merge",
    "read_state",
    "reset",
    "trainable_parameters",
]


def attach(
    model: nn.Module,
    *,
    rank: int,
    alpha: float,
    rank_mode: str = "auto",
    kernel_wise: bool = False,
    freeze_a: bool = False,
    seed: int = 0,
    generator: torch.Generator | None = None,
    train_first_conv: bool = True,
    train_classifier: bool = True,
    route: RouteChoice = "auto",
) -> Attachment:
    """Attach LoRA-C to a network, IN PLACE, and begin a turn: outputs are those of the plain network (B is zero).

    A comes from `generator`, else from the stream (seed, "lora_c"), layer by layer in the network's order. `rank_mode`
    "auto" is `targets.auto_rank_mode`; it has no effect on kernel-wise factors. With `freeze_a` only B is trained and
    read (FFA-LoRA, arXiv 2403.12313): the change is then linear in the state. `route` is for benchmarks and tests.
    Raises FactorError, with nothing altered, for a network that is not plain (`plain.check_plain`), a layer that cannot
    carry a branch, or settings out of range.
    """
    _refuse_unfit_settings(rank, alpha, rank_mode=rank_mode, kernel_wise=kernel_wise, route=route)
    found = find_targets(model, need_classifier=train_classifier)
    mode = auto_rank_mode(model) if rank_mode == "auto" else rank_mode
    flags = tuple((name, p.requires_grad) for name, p in model.named_parameters())
    dense = _trained_as_they_are(found, train_first_conv, train_classifier)
    note = Attachment(rank, float(alpha), mode, kernel_wise, found.branches, dense, flags, freeze_a)
    drawn = draw(model, note, generator if generator is not None else torch_stream(seed, "lora_c"))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None  # an optimizer would still move a frozen weight by a gradient left over
    for name, (A, B) in drawn.items():
        inject(conv_of(model, name), A, B, note.scale, route)
        branch_of(model, name).lora_A.requires_grad_(not freeze_a)
    for name in dense:
        layer = model.get_submodule(name)
        layer.register_buffer("lora_base", weight_of(model, name).detach().clone())
        weight_of(model, name).requires_grad_(True)
    setattr(model, NOTE, note)
    return note


def trainable_parameters(model: nn.Module) -> int:
    """Numbers that an optimizer moves, and that a camera uploads: the paper's "trainable parameters"."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def read_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter as a state: float32 contiguous copies on the CPU, sorted by name.

    "<conv>.A" and "<conv>.B" are the factors (without alpha / r: see `Attachment.scale`), a frozen A left out;
    "<layer>.weight" is the change of a weight trained as it is since the turn began.
    """
    note = attachment(model)
    state = {f"{name}.{side}": factor for name in note.branches for side, factor in factors_of(model, name)}
    state |= {f"{name}.weight": weight_of(model, name) - base_of(model, name) for name in note.dense}
    plain = torch.contiguous_format
    return {
        name: state[name].detach().to("cpu", torch.float32, copy=True, memory_format=plain) for name in sorted(state)
    }


@torch.no_grad()
def load_state(model: nn.Module, state: State) -> None:
    """Put a state read from a network attached alike into this one; FactorError on a misfit, nothing half loaded."""
    note, own = attachment(model), read_state(model)
    if set(state) != set(own):
        missing, strange = sorted(set(own) - set(state)), sorted(set(state) - set(own))
        raise FactorError(f"A state must have the adapter's own keys; missing {missing}, unknown {strange}.")
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise FactorError(
                f"{name!r} must have the shape {tuple(tensor.shape)} of this adapter; came "
                f"{tuple(state[name].shape)}. Was it trained with another rank or rank mode?"
            )
    for name in note.branches:
        for side, factor in factors_of(model, name):
            factor.copy_(state[f"{name}.{side}"])
    for name in note.dense:
        base = base_of(model, name)
        weight_of(model, name).copy_(base + state[f"{name}.weight"].to(base))


@torch.no_grad()
def reset(model: nn.Module, generator: torch.Generator) -> None:
    """Begin a federated turn: B zero, A drawn afresh, and the current weights are the base that changes count from.

    What the branches learnt is gone: read it, or fold the round's change, before.
    """
    note = attachment(model)
    for name, (A, B) in draw(model, note, generator).items():
        layer = branch_of(model, name)
        layer.lora_A.copy_(A)
        layer.lora_B.copy_(B)
    for name in note.dense:
        base_of(model, name).copy_(weight_of(model, name))


@torch.no_grad()
def fold(model: nn.Module, change: State, *, scale: float = 1.0) -> None:
    """W_{t+1} = W_t + D on an attached network: the turn's own training is undone, then D is added to the base.

    Afterwards the network's output is that of the new base (B is zero) and changes count from it; `reset` draws the
    next A. D may be any state that fits the plain network's tensors. FactorError on a misfit, with nothing altered.
    """
    note = attachment(model)
    weights = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.rpartition(".")[2].startswith("lora_") and tensor.is_floating_point()
    }
    check_state(change, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    _undo_turn(model, note)
    apply_changes(weights, change, scale)
    for name in note.dense:
        base_of(model, name).copy_(weight_of(model, name))


@torch.no_grad()
def detach(model: nn.Module) -> None:
    """Take the adapter off, IN PLACE, without a trace: the same module objects, types, keys, values and flags.

    Weights go back to the base (at attach, or the last `reset` or `fold`). Batch norm's running statistics are the
    network's own and stay where training moved them. Nothing of the adapter is kept: `read_state` or `merge` before.
    """
    note = attachment(model)
    _undo_turn(model, note)
    _strip(model, note)


@torch.no_grad()
def merge(model: nn.Module, *, fold_bn: bool = False) -> nn.Module:
    """A COPY of the network with its adapter folded into the weights; the attached network stays as it is.

    The copy has the plain network's module types, keys, flags and operation count. `fold_bn` folds batch norm as well,
    by `fold_bn.fold_batch_norm`, and returns the copy in eval mode: what the plain network folded likewise would be.
    What cannot be folded stays; `fold_bn.folding_of` says which and why.
    """
    note = attachment(model)
    merged = copied(model)
    for name in note.branches:
        layer = branch_of(merged, name)
        layer.weight.add_(layer.delta())
    _strip(merged, note)
    return fold_batch_norm(merged) if fold_bn else merged


def _refuse_unfit_settings(rank: int, alpha: float, *, rank_mode: str, kernel_wise: bool, route: str) -> None:
    if rank < 1 or not alpha > 0:
        raise FactorError(f"LoRA-C needs a rank of at least 1 and alpha above 0; came rank {rank}, alpha {alpha}.")
    if rank_mode not in ("auto", *RANK_MODES):
        raise FactorError(f"A rank mode is 'auto', 'r*k', 'r' or 'filter'; came {rank_mode!r}.")
    if route not in get_args(RouteChoice) or (kernel_wise and route in ("two-step", "thin")):
        raise FactorError(f"A route is 'auto', 'dense' or, layer-wise only, 'two-step' or 'thin'; came {route!r}.")


def _trained_as_they_are(found: Targets, first_conv: bool, classifier: bool) -> tuple[str, ...]:
    names = (found.first_conv if first_conv else None, found.classifier if classifier else None)
    return tuple(name for name in names if name is not None)


def _undo_turn(model: nn.Module, note: Attachment) -> None:
    for name in note.branches:
        branch_of(model, name).lora_B.zero_()
    for name in note.dense:
        weight_of(model, name).copy_(base_of(model, name))
        weight_of(model, name).grad = None


def _strip(model: nn.Module, note: Attachment) -> None:
    """Remove factors, bases and the note, give every parameter its flag back; weights stay as they are."""
    for name in note.branches:
        remove_branch(branch_of(model, name))
    for name in note.dense:
        del model.get_submodule(name).lora_base
    delattr(model, NOTE)
    flags = dict(note.required_grad)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags.get(name, True))
