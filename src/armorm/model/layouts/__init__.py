"""Model folders in other layouts, read and written."""
