"""resnet-cli: residual networks, lesions and paths, as two papers measured them."""

__version__ = "0.1.0"
