"""The protocols of other programs' clients: a module for each family, with pure functions from its bodies to its replies."""
