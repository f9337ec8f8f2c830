"""Public data sets by name: one small module each, `registry` lists them, `place` finds their files."""
