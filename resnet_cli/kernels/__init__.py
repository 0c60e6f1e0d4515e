"""Faster convolutions on processors."""
