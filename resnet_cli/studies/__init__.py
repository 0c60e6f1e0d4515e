"""Paper 2's questions to a trained network: interventions on its list of units.

Veit, Wilber, Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow
Networks" (arXiv:1605.06431). A study takes a network and data and returns rows; it never changes
the network and knows nothing of how it was trained.
"""
