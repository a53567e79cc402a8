"""How many numbers each method sends, as formulas over a network's layers. Knows layers' sizes; not adapters,
strategies or frames: it is the other route to what runs measure.

Notation, as in docs/methods.md: a convolution has the weight (out, in, K, K), R is r*K or r by the rank mode; sums are
over every convolution but the first; `ends` are the first convolution's and the classifier's weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fed_lorac.config import AdapterConfig

__all__ = ["DOWN", "UP", "Conv", "Down", "Layers", "Setting", "Up", "layers_of", "up_of"]

_DIRECTIONS = 16  # K of zeroth-order by default


@dataclass(frozen=True)
class Conv:
    """A convolution's sizes."""

    out: int
    in_: int
    k: int

    @property
    def numbers(self) -> int:
        """Of its weight."""
        return self.out * self.in_ * self.k**2


@dataclass(frozen=True)
class Layers:
    """What formulas need of a network: its convolutions in order, and numbers of parameters."""

    convs: tuple[Conv, ...]
    classifier: int  # its weight
    bias: int  # the classifier's
    norms: int  # weights and biases of norm layers
    everything: int
    tensors: int  # parameters', and running means and variances

    @property
    def branches(self) -> tuple[Conv, ...]:
        """Every convolution but the first."""
        return self.convs[1:]

    @property
    def ends(self) -> int:
        """The first convolution's and the classifier's weights."""
        return self.convs[0].numbers + self.classifier


def layers_of(model: nn.Module) -> Layers:
    """The layers of a plain network."""
    modules = list(model.modules())
    convs = [Conv(m.out_channels, m.in_channels, m.kernel_size[0]) for m in modules if isinstance(m, nn.Conv2d)]
    last = [m for m in modules if isinstance(m, nn.Linear)][-1]
    norms = [m for m in modules if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    return Layers(
        tuple(convs),
        last.in_features * last.out_features,
        last.out_features,
        sum(p.numel() for norm in norms for p in norm.parameters()),
        sum(p.numel() for p in model.parameters()),
        len(list(model.parameters())) + 2 * sum(isinstance(m, nn.BatchNorm2d) for m in modules),
    )


@dataclass(frozen=True)
class Setting:
    """What formulas need of a config."""

    rank: int
    rank_mode: str
    atoms: int
    atoms_m1: int
    atoms_kc: int
    inner: int
    dimension: int
    cameras: int  # counted in a round

    @classmethod
    def of(cls, adapter: AdapterConfig, cameras: int) -> "Setting":
        """From a config's section."""
        own = {"rank_mode": "r", "atoms": 0, "m1": 0, "kc": 0, "inner": 0, "dimension": 0} | adapter.settings("method")
        return cls(
            adapter.ranks[0],
            own["rank_mode"],
            own["atoms"],
            own["m1"],
            own["kc"],
            own["inner"],
            own["dimension"],
            cameras,
        )

    def rows(self, conv: Conv) -> int:
        """R."""
        return self.rank if self.rank_mode == "r" else self.rank * conv.k


Pair = tuple[int, int, int]
"""A factor pair's rank rows, and the columns of A and rows of B."""


@dataclass(frozen=True)
class Up:
    """What a camera sends: `branch` is a convolution's part of it (None: they have none). In words it is each adapter's
    `formula`.

    `pair` is what such a part says as a change; None: a dense change of the convolution's weight.
    """

    branch: Callable[[Conv, Setting], int] | None = None
    pair: Callable[[Conv, Setting], Pair] | None = None
    beside: Callable[[Layers], int] = lambda layers: layers.ends
    together: Callable[[Setting], int] = lambda s: 0  # of all branches, where their parts are no formula

    def numbers(self, layers: Layers, s: Setting) -> int:
        """All of it."""
        return sum(self.branch(conv, s) for conv in layers.branches if self.branch) + (
            self.together(s) + self.beside(layers)
        )

    def merged(self, layers: Layers, s: Setting, times: float) -> int:
        """Numbers of a mean of changes, as `times` pairs of the size of one camera's, or dense where that is less."""
        found = self.beside(layers)
        for conv in layers.branches if self.branch else ():
            pair = self.pair and times * _size(self.pair(conv, s))
            found += int(min(conv.numbers, conv.numbers if pair is None else pair))
        return found


def _size(pair: Pair) -> int:
    rows, cols, lines = pair
    return rows * (cols + lines)


def _view(conv: Conv, s: Setting) -> Pair:
    return s.rows(conv), conv.in_ * conv.k, conv.out * conv.k


def _two_of_them(conv: Conv, s: Setting) -> Pair:
    rows, cols, lines = _view(conv, s)
    return 2 * rows, cols, lines


def _filters(conv: Conv, s: Setting) -> Pair:
    return s.rank, conv.in_ * conv.k**2, conv.out


def _atoms(conv: Conv, s: Setting) -> int:
    return s.atoms * (conv.k if conv.k > 1 else s.atoms_kc) ** 2


def _overcomplete(conv: Conv, s: Setting) -> int:
    return s.atoms * s.atoms_m1 * (conv.in_ + conv.k**2) if conv.k > 1 else _atoms(conv, s)


def _core(conv: Conv, s: Setting) -> Pair:
    return min(s.rank, conv.in_ * conv.k, conv.out * conv.k), conv.in_ * conv.k, conv.out * conv.k


def _rows_drawn(conv: Conv, s: Setting) -> Pair:
    return s.inner, conv.in_ * conv.k, conv.out * conv.k


def _kernel_wise(conv: Conv, s: Setting) -> int:
    return s.rank * conv.k * conv.in_ * conv.out


_LORA_C = Up(lambda conv, s: _size(_view(conv, s)), _view)
_FILTERS = Up(lambda conv, s: _size(_filters(conv, s)), _filters)
_B_ALONE = Up(lambda conv, s: s.rows(conv) * conv.out * conv.k, _view)

UP: dict[tuple[str, str], Up] = {
    ("lora-c", ""): _LORA_C,
    ("lora-c", "kernel-wise"): Up(lambda conv, s: 2 * _kernel_wise(conv, s)),
    ("lorae", ""): _FILTERS,
    ("conv-lora", ""): _FILTERS,
    ("ffa-lora-c", ""): _B_ALONE,
    ("ffa-lora-c", "kernel-wise"): Up(_kernel_wise),
    ("aad", ""): Up(_LORA_C.branch, _two_of_them),
    ("filter-atoms", ""): Up(_atoms),
    ("filter-atoms", "m1"): Up(_overcomplete),
    ("lora-xs", ""): Up(lambda conv, s: _core(conv, s)[0] ** 2, _core),
    ("vera-b", ""): Up(lambda conv, s: conv.out * conv.k, _rows_drawn),
    ("subspace", ""): Up(lambda conv, s: 0, together=lambda s: s.dimension),
    ("mask", ""): Up(lambda conv, s: conv.numbers),
    ("norm-affine", ""): Up(beside=lambda n: n.norms + n.ends),
    ("atp", ""): Up(beside=lambda n: n.tensors),
    ("linear-probe", ""): Up(beside=lambda n: n.classifier + n.bias),
    ("full", ""): Up(beside=lambda n: n.everything),
}
"""(adapter.method, a form of it) -> what a camera sends; most have one form."""


@dataclass(frozen=True)
class Down:
    """What a camera is sent in a round, in words and in numbers, where cameras send `up`."""

    words: str
    numbers: Callable[[Layers, Setting, Up], int]


def _svd(layers: Layers, s: Setting, up: Up) -> int:
    return up.merged(layers, s, 1)


_AS_UP = Down("what goes up", lambda layers, s, up: up.numbers(layers, s))
_STACK = Down("Σ min(n R' (p + q), p q) + ends", lambda layers, s, up: up.merged(layers, s, s.cameras))
_NOTHING = Down("nothing", lambda layers, s, up: 0)

DOWN: dict[tuple[str, str], Down] = {
    ("merged", "svd"): Down("Σ min(R' (p + q), p q) + ends", _svd),
    ("merged", "stack"): _STACK,
    ("merged", "dense"): Down("Σ p q + ends", lambda layers, s, up: up.merged(layers, s, math.inf)),
    ("factor-fedavg", ""): _AS_UP,
    ("flora", ""): _STACK,
    ("flexlora", ""): _AS_UP,
    ("rotating-basis", ""): _AS_UP,
    ("zeroth-order", ""): Down("K, as up, whatever the adapter", lambda layers, s, up: up.numbers(layers, s)),
    ("fedavg", ""): _AS_UP,
    ("clustered", ""): Down("twice that of `merged`, `svd`", lambda layers, s, up: 2 * _svd(layers, s, up)),
    ("local-only", ""): _NOTHING,
    ("zero-byte", ""): _NOTHING,
}
"""(strategy.name, a form of it) -> what goes down."""


def up_of(adapter: str, form: str, strategy: str) -> Up:
    """What goes up: a strategy may freeze a part of an adapter, or send nothing. A form without a formula of its own
    (a rank mode) has its adapter's."""
    if strategy in ("local-only", "zero-byte"):
        return Up(beside=lambda layers: 0)
    if strategy == "zeroth-order":
        return Up(beside=lambda layers: _DIRECTIONS)
    if (adapter, strategy) == ("lora-c", "rotating-basis"):
        adapter = "ffa-lora-c"  # its A is drawn and stays for the round
    return UP.get((adapter, form), UP[adapter, ""])
