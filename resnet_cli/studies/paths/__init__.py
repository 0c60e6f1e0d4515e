"""Paths through a residual network: their lengths, and the gradient by length (Figure 6).

A network of n units has 2^n paths: each passes every unit through its shortcut or through its
residual branch. The length k of a path is the number of its residual branches. With J_i the
Jacobian of F_i and S_i that of h_i at the activations of one forward pass, the gradient at the
input is a sum of one term for each path.

Two measurements:
- sampled, as published: draw paths of length k, measure the norm of the gradient along each path,
  and multiply the mean norm by the number of paths C(n, k);
- exact: propagate the sums over all paths of each length in one backward sweep,
      G_i[k] = S_i^T f_i'^T G_{i+1}[k] + J_i^T f_i'^T G_{i+1}[k-1],
  so that G_0[k] is the sum of the gradients along all paths of length k. Its sum over k is the
  ordinary gradient.
The first ignores that the gradients of different paths cancel in part; the second does not.

In a trained network each residual branch scales the gradient down; after 54 of them it is below the
range of float32. So the gradient of each branch is multiplied by a power of two that keeps long
paths as large as short ones (`CutNetwork.boost`). This is exact, and is undone in float64.

Shapes: N images, C channels, H and W pixels, K path lengths.
"""
