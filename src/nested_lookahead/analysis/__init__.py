"""From run directories to tables and figures, from the command line or in a notebook. Never imports torch.

>>> from nested_lookahead import analysis
>>> study = analysis.load("outputs/laptop")                             # doctest: +SKIP
>>> study.runs, study.metrics                                           # doctest: +SKIP
>>> analysis.compare(study, delta=0.3)                                  # doctest: +SKIP
>>> analysis.draw("learning_curves", study)                             # doctest: +SKIP

See docs/analysis.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nested_lookahead.analysis.collect import Study
    from nested_lookahead.analysis.notebook import compare, draw, load, results

__all__ = ["Study", "compare", "draw", "load", "results"]


def __getattr__(name: str) -> Any:
    """Import pandas and matplotlib when they are asked for; `nested_lookahead.analysis` alone needs neither."""
    if name in __all__:
        return getattr(import_module(f"{__name__}.{'collect' if name == 'Study' else 'notebook'}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
