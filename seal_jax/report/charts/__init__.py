"""Self-contained SVG, light and dark, without scripts."""
