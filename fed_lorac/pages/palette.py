"""Colours and shapes that people who see colours differently tell apart. Knows no figure.

The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), less black and yellow, which vanish on a dark
or on a white page, and an olive after Paul Tol (https://sronpersonalpages.nl/~pault/); colour and shape change
together, so that neither is needed alone.
"""

__all__ = ["COLOURS", "SHADES", "SHAPES", "colour", "shape"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999933")
SHAPES = (
    ("circle", "o"),
    ("square", "s"),
    ("diamond", "D"),
    ("triangle-up", "^"),
    ("x", "X"),
    ("triangle-down", "v"),
)
"""A shape's name in Plotly, and in Matplotlib."""
NEUTRAL = "#808080"
SHADES = "cividis"
"""The scale of heat maps, in both libraries: it rises evenly, in grey and for every kind of colour vision."""


def colour(look: int | None) -> str:
    """The colour of a look; None: grey, which belongs to no arm."""
    return NEUTRAL if look is None else COLOURS[look % len(COLOURS)]


def shape(look: int | None, library: int) -> str:
    """The shape of a look, in Plotly's words (0) or Matplotlib's (1); None: a bar, which belongs to no arm."""
    return ("line-ns", "|")[library] if look is None else SHAPES[look % len(SHAPES)][library]
