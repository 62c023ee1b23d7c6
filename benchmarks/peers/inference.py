"""What sagemaker-inference runs inside multi-model-server: the four functions it asks for."""

import json
from typing import Any

import torch
from eager import Network


def model_fn(model_dir: str, context: object = None) -> Network:
    """Load the model."""
    return Network(model_dir)


def input_fn(body: bytes, content_type: str, context: object = None) -> bytes:
    """The image, as it came."""
    return bytes(body)


def predict_fn(image: bytes, model: Network, context: object = None) -> dict[str, Any]:
    """Classify it."""
    return model.classify(torch.stack([model.prepare(image)]))[0]


def output_fn(answer: dict[str, Any], accept: str, context: object = None) -> str:
    """As JSON."""
    return json.dumps(answer)
