# The environment of a run, for GKE (k8s/jobset.yaml) or any other place that runs containers.
#
#   docker build -t cifar-jax .                          CPU
#   docker build -t cifar-jax --build-arg EXTRA=tpu .    TPU; cuda13 or cuda12: NVIDIA GPU
#   docker run --rm -v "$PWD/runs:/app/runs" cifar-jax --config=configs/quickstart.py
#
# .git stays outside, so environment.json knows no commit: name it in the image's tag.
FROM python:3.12-slim

ARG EXTRA=cpu
WORKDIR /app
COPY requirements*.txt constraints.txt ./
COPY requirements requirements
RUN case "$EXTRA" in \
      cpu) list=requirements.txt ;; \
      tpu) list=requirements-tpu.txt ;; \
      cuda12 | cuda13) list=requirements-cuda.txt; sed -i "s/cuda13/$EXTRA/" requirements/cuda.txt ;; \
      *) echo "EXTRA=$EXTRA: say cpu, tpu, cuda12 or cuda13" >&2; exit 2 ;; \
    esac \
    && pip install --no-cache-dir -r $list
COPY . .

# As PID 1 itself, so that main.py hears the SIGTERM that asks it to save.
ENTRYPOINT ["python", "main.py"]
