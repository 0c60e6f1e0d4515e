"""Loading weights: this program's, third-party ones, and the bundled files."""
