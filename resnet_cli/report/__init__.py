"""One page that shows both papers beside what was measured."""
