"""A plan of needles judged before any heat: where they go, what they pass, what they reach."""
