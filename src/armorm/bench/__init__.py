"""Methods judged on preference pairs: accuracy with intervals, by section."""
