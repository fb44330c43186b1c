"""Writes tests/data/safetensors/reference.safetensors with the reference implementation (pip install safetensors torch).

tests/io/safetensors_test.cc reads it, and writes the same tensors to the same bytes.
"""

import pathlib

import torch
from safetensors.torch import save_file

folder = pathlib.Path(__file__).resolve().parent.parent / "data" / "safetensors"
values = torch.tensor([[0.0, -1.5, 65504.0], [2.0**-14, 0.333251953125, -float("inf")]])
save_file(
    {
        "a.f16": values.to(torch.float16),
        "z.bf16": values.to(torch.bfloat16),
        "b.f32": values,
        "a.f64": values.to(torch.float64),
        "scalar": torch.tensor(0.1),
        "empty": torch.zeros(3, 0),
        "odd.bf16": torch.arange(33, dtype=torch.bfloat16),
        "ids": torch.tensor([-1, 2**40]),
        "ints": torch.tensor([1, -2, 3], dtype=torch.int32),
        'quote " tab \t Ä 🙂': torch.tensor([1.0]),
    },
    folder / "reference.safetensors",
    metadata={"format": "pt"},
)
