"""Sets of preference pairs (stage 2)."""
