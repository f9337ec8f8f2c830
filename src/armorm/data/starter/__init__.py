"""The synthetic starter set: what `make demo` trains on without a network, and the test bed whose truth is known."""

from pathlib import Path

from armorm.data.starter.build import Starter, Truth, build

RECIPE = Path(__file__).with_name("recipe.yaml")
"""The recipe that trains on it."""

__all__ = ["RECIPE", "Starter", "Truth", "build"]
