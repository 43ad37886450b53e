"""`--mode=demo`: a page in the browser: a picture, its classes, what the network sees, and where.

It is served on this machine alone, and asks nothing of another: no analytics, no fonts or scripts
from elsewhere. What is uploaded is deleted at the end.
"""

import atexit
import os
import shutil
import tempfile

_UPLOADS = tempfile.mkdtemp(prefix="cifar-jax-")
atexit.register(shutil.rmtree, _UPLOADS, ignore_errors=True)
# Read while Gradio and what it brings are imported, which only the package's modules do.
os.environ |= {
    "GRADIO_TEMP_DIR": _UPLOADS,
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
