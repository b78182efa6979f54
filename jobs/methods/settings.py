"""Settings that several methods share (torch-free): the same words for the same thing in every form."""

from __future__ import annotations

from jobs.methods.entry import BASE_BITS, Bits, Setting

TARGETS = Setting(
    "targets",
    "Target modules",
    "choice",
    "all-linear",
    "Which layers get an adapter. All linear layers learn best; attention only is smaller.",
    choices=("all-linear", "attention"),
)
# Of methods that drop what the adapter reads, and of those that drop what it adds.
INPUT_DROPOUT = Setting(
    "dropout", "Dropout", "float", 0.0, "Share of the adapter's inputs dropped while training. 0.05 helps on few rows.", 0, 0.9
)
ROW_DROPOUT = Setting(
    "dropout", "Dropout", "float", 0.0, "Share of the update's rows left out in each training step. 0 to 0.1 is usual.", 0, 0.9
)


def base_bits(*bits: Bits) -> Setting:
    """Chooses the bits of the frozen base's weights, for a method whose capabilities name several; the first is the default."""
    return Setting(
        BASE_BITS,
        "Bits of the base",
        "choice",
        str(bits[0]),
        "How the frozen weights are held: 16 as they are, 8 by LLM.int8, 4 by NF4 with double quantisation. Fewer bits, less memory.",
        choices=tuple(str(each) for each in bits),
    )
