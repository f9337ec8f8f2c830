"""The methods to beat, on the same features and pairs."""
