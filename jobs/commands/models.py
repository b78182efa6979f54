"""The arguments of commands that load a model and ask it, and the loading."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.imports import hide_bitsandbytes

if TYPE_CHECKING:
    from jobs.models.heads import Head
    from jobs.models.opened import Opened


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and in which numbers."""
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="the model's folder")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="an adapter upon it, as peft saves it")
    parser.add_argument(
        "--bits", type=int, choices=(16, 8, 4), default=16, help="4: the base in NF4, as QLoRA has it; 8: in LLM.int8 (%(default)s)"
    )
    parser.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="of the arithmetic (%(default)s)"
    )


def asked_head(arguments: argparse.Namespace) -> Head:
    """What the model that the arguments name was made for, before it is loaded. Raises `UserError`."""
    from jobs.models.heads import finished_head

    return finished_head(arguments.model, arguments.adapter)


def open_asked_model(arguments: argparse.Namespace) -> Opened:
    """Loads what the arguments name. Raises `UserError`."""
    from jobs.commands.train import prepare_environment

    prepare_environment()
    os.environ.setdefault("TQDM_DISABLE", "1")  # the loading bar of transformers
    if arguments.bits == 16 and not {"bitsandbytes", "peft"} & sys.modules.keys():
        hide_bitsandbytes()  # peft would load it, which takes a second and says things
    from jobs.models.opened import open_model

    return open_model(arguments.model, arguments.adapter, bits=arguments.bits, precision=arguments.precision)


def whole_number(text: str) -> int:
    """An argument that counts: 1 or more."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return value
