"""What `fit` is made of; docs/development.md draws which file builds on which."""
