"""`python -m resnet_cli` is the same as `resnet-cli`."""

from resnet_cli.cli import main

if __name__ == "__main__":
    main()
