"""What does not fit an adapter: states of another, and networks whose names are taken. Knows names and shapes; not what
a branch computes."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fed_lorac.errors import FactorError

__all__ = ["refuse_misfits", "refuse_other_tensors", "refuse_taken_names"]


def refuse_other_tensors(name: str, came: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """FactorError where a state says the branch of `name` by other tensors than its `own`, or by other shapes."""
    shapes, expected = ({key: tuple(t.shape) for key, t in tensors.items()} for tensors in (came, own))
    if shapes != expected:
        raise FactorError(
            f"A state says a branch by the adapter's own tensors, for {name!r} {expected}; came {shapes or 'none'}. "
            "Was it trained with another method, or other settings?"
        )


def refuse_taken_names(model: nn.Module, branches: Mapping[str, Sequence[str]]) -> None:
    """FactorError where a convolution, by name, has an attribute already of a name that its branch needs."""
    for name, needed in branches.items():
        for own in needed:
            if hasattr(model.get_submodule(name), own):
                raise FactorError(
                    f"A branch has a place of its own on its convolution; layer {name!r} has an attribute {own!r} "
                    "already, which the branch would replace. Delete or rename it."
                )


def refuse_misfits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """FactorError where a state has other tensors than an adapter's `own`, or one of another shape."""
    if state.keys() != own.keys():
        missing, strange = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        raise FactorError(
            f"A state has the adapter's own tensors; missing {missing}, unknown {strange}. Is it another method's?"
        )
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise FactorError(
                f"{name!r} has the shape {tuple(tensor.shape)} in this adapter; came {tuple(state[name].shape)}. "
                "Was it trained with other settings?"
            )
