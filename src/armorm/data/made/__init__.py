"""Answers that are changed so that what is wrong with them is known: objectives and pairs that need no rater."""
