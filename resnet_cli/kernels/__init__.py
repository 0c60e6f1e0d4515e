"""Faster convolutions on processors: the optional extra `resnet-cli[fast]`."""
