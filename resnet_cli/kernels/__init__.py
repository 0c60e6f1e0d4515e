"""Faster layers, put into a network from outside: Winograd's convolutions on processors (the extra
`resnet-cli[fast]`), and batch norm over groups of a batch on CUDA devices."""
