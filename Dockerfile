# docker build -t handclip .
# docker build -t handclip:cuda --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 --build-arg TORCH=pinned .
# docker run --rm -p 127.0.0.1:8888:8888 -v "$PWD/reports:/home/hand/handclip/reports" handclip
ARG BASE=python:3.12-slim-bookworm
# hadolint ignore=DL3006
FROM ${BASE}

# Versions of the base's own packages are the base's matter: its tag pins them.
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends make \
 && { command -v python3 || apt-get install -y --no-install-recommends python3 python3-venv; } \
 && rm -rf /var/lib/apt/lists/*

# Ubuntu's images have a user 1000 of their own.
RUN { ! id ubuntu >/dev/null 2>&1 || userdel --remove ubuntu; } && useradd --create-home --uid 1000 hand
USER 1000
WORKDIR /home/hand/handclip
COPY --chown=hand:hand . .

# cpu, or pinned for the builds with CUDA
ARG TORCH=cpu
RUN make .venv/.installed PYTHON=python3 TORCH="${TORCH}" \
 && .venv/bin/uv cache clean
ENV PATH=/home/hand/handclip/.venv/bin:$PATH

EXPOSE 8888
# Jupyter's token, which its log prints, is what keeps others out.
CMD ["make", "lab", "ARGS=--ip=0.0.0.0 --no-browser"]
