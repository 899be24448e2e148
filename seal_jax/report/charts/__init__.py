"""Pictures of the page: self-contained SVG, light and dark, without scripts."""
