"""`--mode=demo`: a page in the browser: a picture, its classes, what the network sees, and where.

It is served on this machine alone, and asks nothing of another: no analytics, no fonts or scripts
from elsewhere. What is uploaded is deleted at the end, whatever ends it.
"""

import os

from cifar_jax.demo import uploads

# Read while Gradio and what it brings are imported, which only the package's modules do.
os.environ |= {
    "GRADIO_TEMP_DIR": uploads.DIRECTORY,
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
