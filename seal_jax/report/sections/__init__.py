"""The parts of the page, a module each: from what was read to HTML."""
