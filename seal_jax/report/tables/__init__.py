"""Tables as text, which commands print and pages fold away."""
