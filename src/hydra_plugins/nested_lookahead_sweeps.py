"""Where Hydra looks for plugins: it instantiates only what is defined in this namespace, and loads it anew."""

from nested_lookahead.runs import grids, searches, stacked, stages


class GridSweeper(grids.GridSweeper):
    __doc__ = grids.GridSweeper.__doc__


class FairSweeper(stages.FairSweeper):
    __doc__ = stages.FairSweeper.__doc__


class StackedLauncher(stacked.StackedLauncher):
    __doc__ = stacked.StackedLauncher.__doc__


class SearchSweeper(searches.SearchSweeper):
    __doc__ = searches.SearchSweeper.__doc__


class ListLauncher(grids.ListLauncher):
    __doc__ = grids.ListLauncher.__doc__
