"""Residual networks and the VGG from their configurations, and other networks as lists of units."""
