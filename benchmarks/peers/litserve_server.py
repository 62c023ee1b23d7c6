"""LitServe with eager PyTorch: python litserve_server.py FOLDER --port 8000 --batch 8

LitServe 0.2.19 takes a body for JSON or a form; one function is replaced so that it takes
the bytes of an image, like the others in the benchmark.
"""

import argparse
from typing import Any

import litserve
import torch
from eager import Network
from fastapi import Request
from litserve.server import BaseRequestHandler


class Classifier(litserve.LitAPI):
    """An image's bytes to its classes."""

    def __init__(self, folder: str, *, batch: int) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=0.005 if batch > 1 else 0.0)
        self._folder = folder

    def setup(self, device: str) -> None:
        self._network = Network(self._folder)

    def decode_request(self, request: Request) -> torch.Tensor:
        """The annotation tells LitServe to leave FastAPI's checks out; `_body` gives bytes."""
        assert isinstance(request, bytes)
        return self._network.prepare(request)

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, inputs: torch.Tensor) -> Any:
        if inputs.ndim == 3:
            return self._network.classify(inputs.unsqueeze(0))[0]
        return self._network.classify(inputs)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


async def _body(self: BaseRequestHandler, request: Request, request_type: object) -> bytes:
    return await request.body()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    BaseRequestHandler._prepare_request = _body
    server = litserve.LitServer(
        Classifier(options.folder, batch=options.batch),
        accelerator="cpu",
        workers_per_device=options.workers,
    )
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False)


if __name__ == "__main__":
    main()
