"""What is done with a finished model: files scored, answers selected, benchmarks, audits, explanations, other layouts."""
