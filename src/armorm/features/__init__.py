"""Rows → features of a frozen decoder LLM, computed once and kept on disk."""
