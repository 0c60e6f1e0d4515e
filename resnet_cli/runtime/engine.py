"""How studies and training compute: fast, or the way one would write it by hand."""

from typing import Literal, get_args

Engine = Literal["fast", "plain"]
"""Both give the same numbers to rounding. `plain` evaluates every deletion and order whole, module
by module, leads every gradient back by autograd, and trains batch-norm groups one after another and
uncompiled; it is there to compare with."""
ENGINES: tuple[Engine, ...] = get_args(Engine)
