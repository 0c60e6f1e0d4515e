"""The papers' claims and numbers, and the verdicts on them."""
