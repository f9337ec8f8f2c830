"""Features and labels → fitted parts: probe (eq. 1), debias (eq. 2–3), gate (eq. 4–5). Arrays in, parts out; no files."""
