"""Weights: ours, other people's, and the bundled files."""
