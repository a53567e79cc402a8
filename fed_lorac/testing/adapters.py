"""The laws of an adapter: it changes nothing until it is trained, and everything it changed is in its state."""

import copy

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter, trainable_parameters
from fed_lorac.adapters.deltas import State, apply_delta, changed_names, check_delta, dense_delta, set_tensors
from fed_lorac.errors import FactorError
from fed_lorac.models.fingerprints import named_tensors, shapes_of
from fed_lorac.runtime.origin import origin_of
from fed_lorac.seeds import torch_stream
from fed_lorac.testing.laws import distance, equal, moved, small_model, told, under

__all__ = ["check_adapter"]


def check_adapter(adapter: Adapter, model: nn.Module | None = None, *, image_size: int = 16) -> None:
    """Hold an adapter to its laws, on a copy of a plain network in float64 (None: a small ResNet-8).

    Args:
        adapter: with the settings to be checked.
        model: takes images (N, 3, image_size, image_size).
        image_size: pixels a side.

    Raises:
        AssertionError: a law is broken; it says which, and what came.
    """
    _Checks(adapter, copy.deepcopy(model).double().eval() if model is not None else small_model(), image_size).all()


class _Checks:
    def __init__(self, adapter: Adapter, base: nn.Module, image_size: int) -> None:
        adapter.prepare(base)
        self.name, self.base = type(adapter).__name__, base
        self.adapter = adapter.fit_to(base)
        self.images = torch.randn(
            (4, 3, image_size, image_size), generator=torch_stream(0, "images"), dtype=torch.float64
        )
        with torch.no_grad():
            self.plain_output = base(self.images)

    def all(self) -> None:
        """Every law, the simplest first."""
        self.is_a_value()
        self.fresh_changes_nothing()
        self.same_draw_same_state()
        self.state_is_what_is_trained()
        self.state_comes_back()
        self.misfit_is_refused()
        self.merged_is_attached()
        self.delta_is_what_the_state_says()
        self.detached_is_plain()
        self.restarted_is_attached_anew()
        if self.adapter.linear:
            self.delta_is_linear()

    def law(self, text: str, holds: object, came: object = "") -> None:
        under(told(self.name, text), holds, came)

    def attached(self, stream: int = 0) -> nn.Module:
        model = copy.deepcopy(self.base)
        self.adapter.attach(model, torch_stream(stream, "adapter"))
        return model

    def output(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(self.images)
        return found

    def to_delta(self, state: State) -> State:
        """The delta of a state, as a receiver finds it that has the base alone."""
        return self.adapter.to_delta(copy.deepcopy(self.base), torch_stream(0, "adapter"))(state)

    def is_a_value(self) -> None:
        self.law("source must name where the method is from", origin_of(type(self.adapter)))
        self.law("an adapter must be a value, equal to its copies", copy.deepcopy(self.adapter) == self.adapter)

    def fresh_changes_nothing(self) -> None:
        """B is zero, or nothing has moved."""
        off = distance(self.output(self.attached()), self.plain_output)
        self.law("a fresh adapter must not change the network's outputs", off < 1e-9, f"{off:.2g} off")

    def same_draw_same_state(self) -> None:
        one, other = (moved(self.attached()) for _ in range(2))
        alike = equal(self.adapter.read(one), self.adapter.read(other))
        alike = alike and torch.equal(self.output(one), self.output(other))
        self.law("attach must draw from its generator alone, so that equal draws give equal networks", alike)

    def state_is_what_is_trained(self) -> None:
        model = moved(self.attached())
        state, trained = self.adapter.read(model), trainable_parameters(model)
        held = sum(tensor.numel() for tensor in state.values())
        self.law("something must be trained", trained)
        self.law("a state must hold every trained number, once", held == trained, f"{held}, {trained} are trained")
        self.law("the names of a state must be sorted", list(state) == sorted(state), list(state)[:5])
        for name, tensor in state.items():
            plain = tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
            self.law(f"{name!r} must be float32, contiguous, on the CPU", plain, f"{tensor.dtype} on {tensor.device}")
            self.law(f"{name!r} must not be part of a graph", not tensor.requires_grad)

    def state_comes_back(self) -> None:
        model = moved(self.attached())
        state, other = self.adapter.read(model), self.attached()
        self.adapter.load(other, state)
        self.law("a state that is loaded must be read again to the last bit", equal(self.adapter.read(other), state))
        off = distance(self.output(other), self.output(model))
        self.law("a network that loads a state must give the same outputs", off < 1e-5, f"{off:.2g} off")

    def misfit_is_refused(self) -> None:
        model = moved(self.attached())
        state = self.adapter.read(model)
        name, first = next(iter(state.items()))
        less = {key: tensor for key, tensor in state.items() if key != name}
        for what, wrong in (("a missing tensor", less), ("a tensor too many", {**state, "stranger": first})):
            try:
                self.adapter.load(model, wrong)
            except FactorError:
                self.law(f"after it refused {what}, nothing may be loaded", equal(self.adapter.read(model), state))
                continue
            self.law(f"load must refuse {what} with FactorError", False, "no error")

    def merged_is_attached(self) -> None:
        model = moved(self.attached())
        before = self.output(model)
        merged = self.adapter.merge(model)
        off = distance(self.output(merged), before)
        self.law("a merged copy must give the attached network's outputs", off < 1e-9, f"{off:.2g} off")
        self.law("merging must leave the attached network as it is", torch.equal(self.output(model), before))
        self.is_plain(merged, "a merged copy")

    def delta_is_what_the_state_says(self) -> None:
        model = moved(self.attached())
        said, shapes = self.to_delta(self.adapter.read(model)), shapes_of(self.base)
        try:
            check_delta({name: tensor.float() for name, tensor in said.items()}, shapes)
        except FactorError as error:
            self.law("to_delta must give a delta of the base's tensors", False, error)
        found = self.adapter.delta(model)
        self.law(
            "to_delta must name the parameters that change", sorted(found) == sorted(changed_names(said)), list(said)
        )
        for name, dense in found.items():
            off = distance(dense_delta(said, name, shapes[name], self.adapter.scale), dense)
            self.law(f"to_delta times scale must be the delta of {name!r}", off < 1e-4, f"{off:.2g} off")
        server = copy.deepcopy(self.base)
        apply_delta(named_tensors(server), {name: t.double() for name, t in said.items()}, self.adapter.scale)
        off = distance(self.output(server), self.output(model))
        self.law("a base with the delta folded in must give the camera's outputs", off < 1e-3, f"{off:.2g} off")

    def restarted_is_attached_anew(self) -> None:
        """A round after a round: other weights, another draw, and nothing of what was trained."""
        weights = {name: 1.25 * tensor.detach() for name, tensor in self.base.named_parameters()}
        other = copy.deepcopy(self.base)
        set_tensors(other, weights)
        self.adapter.attach(other, torch_stream(1, "adapter"))
        model = moved(self.attached())
        self.adapter.restart(model, weights, torch_stream(1, "adapter"))
        same = equal(self.adapter.read(model), self.adapter.read(other))
        law = "restart must leave what attach leaves on a network of these weights"
        self.law(law, same and torch.equal(self.output(model), self.output(other)))

    def detached_is_plain(self) -> None:
        model = moved(self.attached())
        self.adapter.detach(model)
        self.law("detach must give back the outputs before attach", torch.equal(self.output(model), self.plain_output))
        self.is_plain(model, "a detached network")

    def delta_is_linear(self) -> None:
        """to_delta(a x + b y) = a to_delta(x) + b to_delta(y)."""
        one, other = (self.adapter.read(moved(self.attached(), stream)) for stream in (1, 2))
        both = {name: 0.25 * one[name] + 0.75 * other[name] for name in one}
        shapes, deltas = shapes_of(self.base), [self.to_delta(state) for state in (one, other, both)]
        for name in changed_names(deltas[2]):
            first, second, mean = (dense_delta(d, name, shapes[name], self.adapter.scale) for d in deltas)
            off = distance(mean, 0.25 * first + 0.75 * second)
            self.law(f"linear says that the delta of {name!r} is linear in the state", off < 1e-4, f"{off:.2g} off")

    def is_plain(self, model: nn.Module, what: str) -> None:
        kinds = [[(name, type(module)) for name, module in one.named_modules()] for one in (model, self.base)]
        flags = [[(name, p.requires_grad) for name, p in one.named_parameters()] for one in (model, self.base)]
        self.law(f"{what} must have the layers of the plain one", kinds[0] == kinds[1])
        names = [model.state_dict().keys(), self.base.state_dict().keys()]
        self.law(f"{what} must have the tensors of the plain one", names[0] == names[1])
        self.law(f"{what} must train what the plain one trained", flags[0] == flags[1])
        self.law(f"{what} must have no attributes left over", vars(model).keys() == vars(self.base).keys())
