"""`--mode=export`: a trained network as a file that other programs run.

A network comes with its preprocessing: uint8 images `[B, H, W, C]`, any B, to float32 logits
`[B, K]`. A file is there only once it has been compared with the checkpoint.
"""

import importlib

from etils import epath

from cifar_jax import places
from cifar_jax.errors import UserError, missing
from cifar_jax.evaluation import trained
from cifar_jax.runtime import settings
from cifar_jax.runtime import workdir as files
from cifar_jax.training import run_data

# Format -> what it is called inside the workdir's export/.
FORMATS = {
    "stablehlo": "model.stablehlo",
    "onnx": "model.onnx",
    "onnx-int8": "model.int8.onnx",
    "safetensors": "safetensors",
}


@settings.pinned()
def run(
    workdir: epath.Path,
    format: str,
    output: str | None = None,
    data_dir: str = "",
    force: bool = False,
) -> str:
    """Exports the run in `workdir`.

    Args:
      format: one of `FORMATS`.
      output: the file, of "safetensors" the directory; None: as `FORMATS` says.
      data_dir: where this machine has the data, by `run_data.place`; "": where the config says.
      force: replace what is there, though no export of this run has left it so.

    Returns:
      What was written, for a person.

    Raises:
      UserError: there is no such format or run, a package is missing, the export is not the network
        of the checkpoint, it cannot be written, or something is there already.
    """
    if format not in FORMATS:
        raise UserError(f"--format={format} is no format of an export: use {', '.join(FORMATS)}")
    module = f"{__name__}.{format.replace('-', '_')}_format"
    try:
        exporter = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing(error, f"--format={format}", "requirements-onnx.txt") from error
    path = workdir / files.EXPORT / FORMATS[format]
    if output is not None:
        path = places.anywhere(output, "--output")
    exporter.check(path, workdir, force)
    network = trained.load(workdir)
    run_data.place(network.config, data_dir)
    try:
        return exporter.write(network, path)
    except OSError as error:
        raise UserError(
            f"cannot write to {path} ({error.strerror or error}): choose another --output"
        ) from error
