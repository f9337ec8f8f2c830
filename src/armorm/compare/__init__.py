"""Every method of the paper's Table 1 on one backbone and data."""
