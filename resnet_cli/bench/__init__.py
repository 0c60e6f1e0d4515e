"""Benchmarks: each piece of work beside plain PyTorch code for the same (`resnet-cli bench`)."""
