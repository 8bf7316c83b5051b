"""How fast all of it is: ratios measured side by side in one run."""
