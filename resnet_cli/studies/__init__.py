"""Studies of a network: interventions on its list of units, and measurements of its signals.

Most follow Veit, Wilber, Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively
Shallow Networks" (arXiv:1605.06431). A study takes a network and data and returns the rows of
tables. It does not change the network, and does not depend on how it was trained.
"""
