"""The laws that every part is held to, for anyone's own, from adapters to data sets.

    from fed_lorac.testing import check_adapter

    def test_my_adapter():
        check_adapter(MyAdapter(rank=2))

Each check raises one AssertionError at the first law that is broken: what must hold, and what came. The built-in parts'
own tests call the same checks.
"""

from fed_lorac.testing.adapters import check_adapter
from fed_lorac.testing.codecs import check_codec
from fed_lorac.testing.datasets import check_corruption, check_dataset
from fed_lorac.testing.models import check_model
from fed_lorac.testing.objectives import check_objective
from fed_lorac.testing.strategies import check_strategy

__all__ = [
    "check_adapter",
    "check_codec",
    "check_corruption",
    "check_dataset",
    "check_model",
    "check_objective",
    "check_strategy",
]
