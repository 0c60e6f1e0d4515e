"""Benchmarks: this program's code compared with plain PyTorch code (`resnet-cli bench`)."""
