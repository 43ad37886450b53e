"""`--mode=demo`: a web page that classifies a picture and shows what the network looks at.

The page is served to this machine only and makes no request to any other: no analytics, no fonts
or scripts from elsewhere. Uploads are deleted when the demo ends, however it ends.
"""

import os

from cifar_jax.demo import uploads

# Gradio and its dependencies read these on import, and only this package imports them.
os.environ |= {
    "GRADIO_TEMP_DIR": uploads.DIRECTORY,
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
}
