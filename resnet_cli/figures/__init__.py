"""Shared figure code, and the figures of trainings; a study's figures are in its own module.

Each `…_figure` takes tables as DataFrames and returns a matplotlib Figure; `save` writes one as
PNG, atomically.

Figures are made without pyplot, so none stays open and no global state changes. matplotlib is
imported inside functions, because most commands draw nothing.

Published numbers are drawn over the measurements. Those that were not checked against the paper's
text are labelled "approximate" (`published_label`).
"""
