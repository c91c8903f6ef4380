"""Writes tests/data/pytorch/ with torch itself (2.13): each file, and beside it what torch reads from it, as `.npy`.

Run by hand: `PYTHON-WITH-TORCH tests/data/make_pytorch.py`. The tests need only the files.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

torch: Any = import_module("torch")

FOLDER = Path(__file__).parent / "pytorch"
DTYPES = (
    "float32",
    "float16",
    "bfloat16",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "float8_e4m3fn",
)


def save(name: str, value: object, expected: Any = None, **how: Any) -> None:  # noqa: ANN401
    """One file in each of torch's two formats, and the numbers of the table in float32."""
    for folder, new in (("zip", True), ("legacy", False)):
        (FOLDER / folder).mkdir(parents=True, exist_ok=True)
        torch.save(value, FOLDER / folder / f"{name}.pt", _use_new_zipfile_serialization=new, **how)
    if expected is not None:
        np.save(FOLDER / f"{name}.npy", expected.detach().to(torch.float32).numpy())


class Model(torch.nn.Module):  # type: ignore[misc]  # without torch the base is anything
    """A small language model whose output layer is tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(20, 6, padding_idx=0)
        self.head = torch.nn.Linear(6, 20, bias=False)
        self.head.weight = self.embed.weight


def main() -> None:
    """All files; the numbers are drawn from a fixed seed."""
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(20, 6, padding_idx=0)
    weight = embedding.weight.detach()
    save("state_dict", embedding.state_dict(), weight)
    save("protocol_4", embedding.state_dict(), weight, pickle_protocol=4)
    save("tensor", weight, weight)
    save("parameter", {"weight": embedding.weight}, weight)
    for dtype in DTYPES:
        exact = torch.tensor([[0, 1], [2, 3], [0.5, 100]]) if "int" not in dtype else torch.arange(6).reshape(3, 2)
        values = (exact if "int" in dtype or dtype == "bool" else weight).to(getattr(torch, dtype))
        served = not dtype.startswith(("bool", "complex", "float8"))
        save(dtype, {"weight": values}, values if served else None)

    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
    model.embed(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    checkpoint = {
        "epoch": 3,
        "loss": 0.25,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "args": {"device": torch.device("cpu"), "dtype": torch.float16, "shape": torch.Size([20, 6]), "tags": {"a"}},
        "history": [1.0, None, True, ("x", b"y")],
        "rng": torch.get_rng_state(),
    }
    save("checkpoint", checkpoint, model.embed.weight)
    save("tied", model.state_dict(), model.embed.weight)
    save("module", embedding)

    grid = torch.randn(9, 14)
    save("transposed", {"weight": grid.T}, grid.T)
    save("view", {"weight": grid[2:8, 3:7]}, grid[2:8, 3:7])
    save("stepped", {"weight": grid[1::3, ::4]}, grid[1::3, ::4])
    save("two_of_one", {"a": grid[:4], "b": grid[4:]})
    np.save(FOLDER / "two_of_one_a.npy", grid[:4].numpy())
    np.save(FOLDER / "two_of_one_b.npy", grid[4:].numpy())
    save("bfloat16_view", {"weight": grid.to(torch.bfloat16).T[1:5]}, grid.to(torch.bfloat16).T[1:5])
    save("beside", {"step": torch.tensor(3), "bias": torch.ones(4), "cube": torch.ones(2, 2, 2), "w": grid}, grid)
    save("expanded", {"weight": torch.ones(1).expand(1000, 50)})
    save("empty", {"weight": torch.ones(0, 4)})
    special = torch.tensor([[-0.0, 1e-45], [3.3895e38, -1e-39]]).to(torch.bfloat16)
    save("bfloat16_special", {"weight": special}, special)
    torch.serialization.set_crc32_options(False)
    torch.save({"weight": weight}, FOLDER / "zip" / "no_crc.pt")


if __name__ == "__main__":
    main()
