"""(IA)^3 (Liu et al. 2022, arXiv:2205.05638): what a layer reads, or what it gives, scaled number by number."""

from __future__ import annotations

from jobs.export.adapter_file import AdapterFile
from jobs.export.floats import Float32
from jobs.export.shards import StoredTensor
from jobs.export.updates.change import Apply, CannotStreamError, Change, Kind, split


def find(adapter: AdapterFile, tensor: StoredTensor) -> Change | None:
    """The change of a linear layer: its columns scaled where its inputs are (feed-forward layers), else its rows and its bias."""
    module, leaf = split(tensor.name)
    taken = adapter.take_all(module, "ia3_l") if leaf in ("weight", "bias") else None
    if not taken:
        return None
    factors = taken[0]
    if leaf == "bias":
        return _scaled(tensor, factors, by_rows=True) if factors.shape[1] == 1 else None
    by_rows = (factors.shape[1] == 1) != bool(adapter.config.get("fan_in_fan_out"))
    return _scaled(tensor, factors, by_rows=by_rows)


def _scaled(tensor: StoredTensor, factors: StoredTensor, *, by_rows: bool) -> Change:
    if max(factors.shape) != tensor.shape[0 if by_rows else -1]:
        raise CannotStreamError(f"{tensor.name} has the shape {tensor.shape}, its factors {factors.shape}")

    def load() -> Apply:
        values = factors.floats().reshape(-1)

        def apply(rows: Float32, first: int) -> None:
            rows *= values[first : first + len(rows), None] if by_rows else values

        return apply

    return Change(load)


IA3 = Kind(find, frozenset({"feedforward_modules", "fan_in_fan_out", "init_ia3_weights"}))
