"""Faster layers that replace those of a network from outside: Winograd convolutions on CPUs (the
extra `resnet-cli[fast]`), and batch norm over groups of a batch on CUDA devices."""
