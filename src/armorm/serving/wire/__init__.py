"""The protocols of other programs' clients: a module for each family, with pure functions between its bodies and conversations."""
