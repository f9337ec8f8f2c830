"""The one place that knows every stage and runs them in order: `train.train`."""
