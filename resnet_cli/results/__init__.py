"""Results: tables with their provenance. results/README.md describes the files."""
