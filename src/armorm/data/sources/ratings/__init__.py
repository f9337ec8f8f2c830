"""Sets of absolutely rated answers (stage 1)."""
