"""`--mode=export`: writes a trained network to a file that other programs can run.

Preprocessing is part of the export: it maps uint8 images `[B, H, W, C]`, for any B, to float32
logits `[B, K]`. An export is written only after its output matched that of the checkpoint.
"""

import importlib

from etils import epath

from cifar_jax import places
from cifar_jax.errors import UserError, missing
from cifar_jax.evaluation import trained
from cifar_jax.runtime import settings
from cifar_jax.runtime import workdir as files

# Format -> its default file name in the workdir's export/.
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
      output: path of the file, or of the directory for "safetensors"; None: the default name.
      data_dir: where this machine keeps the data; "": where the config says.
      force: replace an existing file even if no export of this run wrote it.

    Returns:
      A line that says what was written.

    Raises:
      UserError: there is no such format or run, a package is missing, the export's output differs
        from the checkpoint's, it cannot be written, or the path is taken.
    """
    if format not in FORMATS:
        raise UserError(f"--format={format} is not an export format: use {', '.join(FORMATS)}")
    module = f"{__name__}.{format.replace('-', '_')}_format"
    try:
        exporter = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing(error, f"--format={format}", "requirements-onnx.txt") from error
    path = workdir / files.EXPORT / FORMATS[format]
    if output is not None:
        path = places.anywhere(output, "--output")
    exporter.check(path, workdir, force)
    network = trained.load(workdir, data_dir)
    try:
        return exporter.write(network, path)
    except OSError as error:
        raise UserError(
            f"cannot write to {path} ({error.strerror or error}): choose another --output"
        ) from error
