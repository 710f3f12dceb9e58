"""The parts of `fit`. docs/development.md shows which file builds on which."""
