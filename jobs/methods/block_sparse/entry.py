"""Catalogue entry of block-sparse fine-tuning (torch-free)."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from jobs.methods.adapter import Adapter, Keeps, beside
from jobs.methods.entry import Capabilities, Method, Setting
from jobs.methods.settings import TARGETS, base_bits
from jobs.models.frame import Frame, Layer
from jobs.models.head_shapes import Shape

BLOCK_SPARSE = Method(
    id="block_sparse",
    name="Block-sparse",
    family="sparse",
    summary=(
        "Splits each weight matrix into a grid of blocks and trains only a few of them, chosen by scores that are learnt along: a block "
        "whose score sinks leaves, another enters. The update has full rank where it acts and leaves the rest of the model as it is, so "
        "adapters of different tasks seldom touch the same weights. Take it to see where a task changes a model, or to combine adapters."
    ),
    paper="Harada, Yamasaki and Yoshida, block-sparse parameter-efficient fine-tuning, 2025",
    application="jobs.methods.block_sparse.apply:apply",
    adapter="jobs.methods.block_sparse.entry:plan",
    learning_rate=3e-3,
    settings=(
        Setting(
            "block_rows",
            "Rows of blocks",
            "int",
            24,
            "The grid's rows (n): how often a matrix is cut along its outputs. 24 with 32 columns for small models; 64 with 64 columns, 50 "
            "blocks, alpha 2 and a base of 8 bits for models of about 8 billion weights.",
            1,
            1024,
        ),
        Setting("block_columns", "Columns of blocks", "int", 32, "The grid's columns (m): how often it is cut along its inputs.", 1, 1024),
        Setting(
            "blocks",
            "Trained blocks",
            "int",
            15,
            "How many blocks of each matrix are trained (k). More blocks, more capacity and memory; 1 to 3 % of the grid is usual.",
            1,
            65536,
        ),
        Setting(
            "alpha",
            "Alpha",
            "float",
            1.0,
            "The update is scaled by it, and by each block's score (2 to 3 at first). 1 is usual, 2 for large models.",
            0.001,
            4096,
        ),
        TARGETS,
        base_bits(16, 8, 4),
    ),
    hooks="jobs.methods.block_sparse.selection:Selection",
    tuner="jobs.methods.block_sparse.tuner",
    capabilities=Capabilities(bases=(16, 8, 4), combines=True),
)


def plan(settings: Mapping[str, Any], frame: Frame) -> Adapter:
    """The scores of all blocks of each layer, and the values of the selected ones."""

    def shapes(layer: Layer) -> dict[str, Shape]:
        n, m, height, width = grid(layer.outputs, layer.inputs, settings["block_rows"], settings["block_columns"])
        return {"scores": (n, m), "values": (min(settings["blocks"], n * m), height, width)}

    def keeps(layer: Layer) -> Keeps:
        """What each block reads and gives, and the blocks, scaled."""
        selected, height, width = shapes(layer)["values"]
        return Keeps(token=selected * (height + width), made=selected * height * width)

    return beside(frame, settings, "block_sparse", shapes, keeps)


def grid(outputs: int, inputs: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Rows and columns of blocks, and the outputs and inputs of one: of the next whole size where a side is not divided."""
    height, width = ceil(outputs / rows), ceil(inputs / columns)
    return ceil(outputs / height), ceil(inputs / width), height, width
