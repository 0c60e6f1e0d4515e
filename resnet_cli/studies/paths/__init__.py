"""Paths through a residual network: their lengths, and the gradient by length (Figure 6).

A network of n units has 2^n paths: each unit is passed through its shortcut or through its
residual branch, and a path's length k is the number of residual branches on it. With J_i the
Jacobian of F_i and S_i that of h_i at the activations of one forward pass, the gradient at the
input splits into one term for each path.

Two measurements:
- sampled, as published: draw a path of length k, take the norm of the gradient it alone delivers,
  and multiply the mean norm by the number of paths C(n, k);
- exact: carry the sums over all paths of each length in one backward sweep,
      G_i[k] = S_i^T f_i'^T G_{i+1}[k] + J_i^T f_i'^T G_{i+1}[k-1],
  so that G_0[k] is the gradient that all paths of length k deliver together. Its sum over k is
  the ordinary gradient.
The first ignores that gradients of different paths cancel; the second does not.

A trained network's gradient shrinks at every residual branch, over 54 of them to less than float32
can hold. So each branch's gradient is multiplied by a power of two that keeps long paths as large
as short ones (`CutNetwork.boost`), which changes no digit; results are brought back in float64.

Shapes: N images, C channels, H and W pixels, K path lengths.
"""
