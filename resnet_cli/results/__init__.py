"""Results: tables with their provenance, and plots. results/README.md describes the files."""
