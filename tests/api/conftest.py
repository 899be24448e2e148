"""A tiny model for the tests of the API, loaded once."""

import golden_models
import pytest

import seal_jax as seal


@pytest.fixture(scope="session")
def folder():
    """Of a tiny Qwen2 that reads bytes."""
    return golden_models.GOLDEN / "qwen2" / "model"


@pytest.fixture(scope="session")
def model(folder):
    return seal.load(folder)


@pytest.fixture(scope="session")
def texts():
    """Of every kind, of other lengths."""
    return [
        "Ada bakes rye bread.",
        ("What is baked?", " Rye bread."),
        ["The mill is old.", "It grinds rye."],
        "Boris",
        ["Boris", ("Who bakes?", " Boris"), "He is a baker."],
        "Ada plays the piano.",
    ]


@pytest.fixture(scope="session")
def adapters(model, texts):
    """Trained on them; a rate that changes what the model writes."""
    return seal.train_adapters(
        model, texts, rank=4, learning_rate=0.02, epochs=3, progress=False
    )
