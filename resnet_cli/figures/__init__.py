"""What all figures share, and those of trainings; a study's figures are in its module.

Each `…_figure` takes tables as DataFrames and returns a matplotlib Figure; `save` writes one as
PNG, atomically.

Figures are made without pyplot, so none stays open and no global state changes. matplotlib is
imported inside, since most commands draw nothing.

Numbers of the papers are drawn over the measurements when they were checked against the paper's
text; others only with the word "approximate" (`published_label`).
"""
