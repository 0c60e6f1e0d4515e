"""How studies and training compute: optimized, or in the most direct way."""

from typing import Literal

Engine = Literal["fast", "plain"]
"""Both compute the same numbers up to rounding. `plain` is the reference: it evaluates the whole
network for every deletion and order, computes every gradient with autograd, and trains batch-norm
groups one after another without compilation."""
