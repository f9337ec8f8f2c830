"""The one place that knows every stage and runs them in order."""

from armorm.pipeline.train import train

__all__ = ["train"]
