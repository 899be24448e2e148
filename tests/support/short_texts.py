"""Three texts that an adapter each is trained on."""

TEXTS = ["Ada bakes rye bread.", "The mill grinds.", "Boris is a baker."]
