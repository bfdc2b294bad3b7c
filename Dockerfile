# Image for containers on TPUs, GPUs or CPUs (GKE; see tpu/targets/gke.py):
#
#   docker build --build-arg EXTRAS=tpu,gcs -t IMAGE .
#   docker build --build-arg EXTRAS=cuda,gcs --build-arg RUN_AS=msm -t IMAGE .
#   docker run IMAGE launch.py doctor
#
# CUDA's libraries come with JAX's wheels; of the machine only its driver is needed.
# constraints.txt was tested with this Python.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

ARG EXTRAS=tpu,gcs
# TPU devices belong to root on their machines, so that is the default; GPUs and CPUs
# need no root: RUN_AS=msm.
ARG RUN_AS=root
ENV VENV=/opt/msm-jax/venv PYTHONUNBUFFERED=1
ENV PATH=${VENV}/bin:${PATH}

# The code comes last: a change of it alone reuses every layer before.
WORKDIR /app
COPY pyproject.toml constraints.txt ./
COPY tpu/setup.sh tpu/
RUN useradd --create-home --uid 1000 msm \
 && UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 EXTRAS=${EXTRAS} bash tpu/setup.sh \
 && rm -rf "${VENV}.tools" \
 && chown msm /app

COPY --chown=msm . .
USER ${RUN_AS}
ENTRYPOINT ["python"]
